package openai

import (
	"strconv"

	"github.com/penstock/penstock/schema/event"
)

// ResponseScript tells the events of one task as those of a response. The number
// of each is computed from the task's events alone, all of them from the first
// on, so that it is the same on every replica and for every reader, whatever
// they are told of it.
//
// Each attempt begins with a response.in_progress, which says that the output so
// far is void. If there was some, it takes the number of an error before that: the
// error ends the stream of whoever has seen some of the output, and who comes back
// goes on with the new attempt.
//
// Where events are lost the numbers are lost with them: whoever resumed is then
// told the end alone, under a number above all that they have seen. The numbers
// of attempts lie apart, so that one whose last events are lost, when a replica of
// Redis took over, does not lend its numbers to the next.
type ResponseScript struct {
	response Response
	p        ResponseView

	next    int64 // number
	fence   event.Fence
	running bool          // response.in_progress was said
	items   []*outputItem // of the attempt, as far as it has come, by output index
	begun   int64         // number of the attempt's first output; -1: none
	told    bool          // some of it was told here
	held    bool          // the attempt's text is lost: the end has it
	lost    bool          // numbers are
	errorAt int64         // number of the error that ends the stream

	frames [][]byte
}

// ResponseView is what one reader of a response wants of it.
type ResponseView struct {
	After int64       // nothing up to this number is told; -1: everything
	Since event.Fence // the output of attempts before is void, and not told
	Ended bool        // the task has ended: what is void is not to be shown to anybody
	Lost  bool        // events may be lost without a trace
}

// attemptStep parts the numbers of attempts: above what a stream holds.
const attemptStep = 1 << 16

// generationStep parts the numbers of a task's generations: a response that failed
// and is put back to work goes on above what was told of it.
const generationStep = 1 << 24

// NewResponseScript begins a stream.
func NewResponseScript(r Response, v ResponseView) *ResponseScript {
	return &ResponseScript{response: r, p: v, begun: -1, lost: v.Lost}
}

// Begin returns the first frames.
func (s *ResponseScript) Begin() [][]byte {
	first := s.response.open(s.response.first())
	s.say("response.created", map[string]any{"response": first})
	if s.response.Request.Echo.Background {
		s.say("response.queued", map[string]any{"response": first})
	}
	return s.take()
}

// Tell returns the frames for an event that is no end. Err is ErrInterrupted
// when the stream ends with an error.
func (s *ResponseScript) Tell(e event.Event) ([][]byte, error) {
	err := s.reach(e.ID.Fence)
	if err == nil {
		s.hear(e)
	}
	return s.take(), err
}

// hear takes in an event of the present attempt.
func (s *ResponseScript) hear(e event.Event) {
	switch e.Type {
	case event.Delta:
		if !s.held && e.Index == 0 {
			s.delta(e)
		}
	case event.Gap:
		s.held, s.lost = true, true
	case event.Snapshot:
		s.lost = true
		s.snapshot(e.Text)
	}
}

// reach goes on to the attempt that an event is of.
func (s *ResponseScript) reach(f event.Fence) error {
	if f == 0 || f == s.fence {
		return nil
	}
	s.next = max(s.next, int64(f.Generation())*generationStep)
	err := s.void()
	if s.fence != 0 {
		s.next += attemptStep - s.next%attemptStep
	}
	s.fence, s.held = f, false
	if s.p.Since != 0 && f > s.p.Since && s.next <= s.p.After {
		s.lost = true // it began since its reader joined, who has seen its numbers before
	}
	if err == nil {
		s.progress()
	}
	return err
}

func (s *ResponseScript) progress() {
	s.running = true
	s.say("response.in_progress", map[string]any{"response": s.response.open(responseInProgress)})
}

// void forgets the output so far. It is an error for who has seen some of it.
func (s *ResponseScript) void() error {
	if s.begun < 0 {
		return nil
	}
	seen := !s.dead() && !s.p.Ended && (s.told || s.p.After >= s.begun)
	s.errorAt = s.next
	s.next++
	s.items, s.begun, s.told, s.running = nil, -1, false, false
	if seen {
		return ErrInterrupted
	}
	return nil
}

// dead reports whether the present attempt is known to be void.
func (s *ResponseScript) dead() bool { return s.fence < s.p.Since }

// mute reports whether the reader cannot know what numbers mean any more.
func (s *ResponseScript) mute() bool { return s.lost && s.p.After >= 0 }

// say tells an event of the response itself, unless its reader has it.
func (s *ResponseScript) say(kind string, members map[string]any) bool {
	n := s.next
	s.next++
	if n <= s.p.After || s.mute() {
		return false
	}
	s.frames = append(s.frames, frame(kind, n, members))
	return true
}

// show tells an event of the output.
func (s *ResponseScript) show(kind string, members map[string]any) {
	if s.begun < 0 {
		s.begun = s.next
	}
	if s.dead() {
		s.next++
		return
	}
	s.told = s.say(kind, members) || s.told
}

// frame is an event as it is sent.
func frame(kind string, number int64, members map[string]any) []byte {
	members["type"], members["sequence_number"] = kind, number
	out := append(make([]byte, 0, 256), "event: "...)
	out = append(append(out, kind...), "\ndata: "...)
	return append(append(out, encode(members)...), '\n', '\n')
}

func (s *ResponseScript) take() [][]byte {
	out := s.frames
	s.frames = nil
	return out
}

// Interrupted is the last frame of a stream that ended with ErrInterrupted. It
// has the error as the specification of the API has it, and as its servers send
// it: clients raise only that.
func (s *ResponseScript) Interrupted() []byte {
	f := Interrupted(s.response.Task)
	f.Message = "the answer was interrupted after a part of it was sent, and begins anew: ask for it with starting_after"
	return errorFrame(f, max(s.errorAt, s.p.After+1))
}

// Failure is the last frame of a stream that cannot go on and cannot be resumed.
func (s *ResponseScript) Failure(f Failure) []byte { return errorFrame(f, max(s.next, s.p.After+1)) }

func errorFrame(f Failure, number int64) []byte {
	return frame("error", number, map[string]any{"code": f.Code, "message": f.Message, "param": f.Param, "error": f})
}

// LiveSince is the Since of a reader who joins when the newest attempt with
// events is known. A task that has ended, and not by that attempt, has its output
// from none that was told.
func LiveSince(newest event.Fence, produced string, generation uint8) event.Fence {
	if newest != 0 && produced != "" && produced != newest.String() {
		return event.LastRestartID(generation).Fence
	}
	return newest
}

// StartingAfter reads the number that a reader names; -1 for none.
func StartingAfter(text string) (int64, error) {
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 1<<53 {
		return 0, badMember("starting_after", "must be the sequence_number of an event")
	}
	return n, nil
}
