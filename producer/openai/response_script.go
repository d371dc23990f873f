package openai

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/penstock/penstock/schema/api"
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
	return errorFrame(f, s.errorAt)
}

// Failure is the last frame of a stream that cannot go on and cannot be resumed.
func (s *ResponseScript) Failure(f Failure) []byte { return errorFrame(f, max(s.next, s.p.After+1)) }

func errorFrame(f Failure, number int64) []byte {
	return frame("error", number, map[string]any{"code": f.Code, "message": f.Message, "param": f.Param, "error": f})
}

// callPiece is a piece of a call.
type callPiece struct {
	Index    int    `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// delta tells the next piece of the output.
func (s *ResponseScript) delta(e event.Event) {
	var more struct {
		Delta struct {
			Refusal string      `json:"refusal"`
			Calls   []callPiece `json:"tool_calls"`
		} `json:"delta"`
	}
	_ = json.Unmarshal(e.Choice, &more) // nil, or written by a worker
	if e.Text != "" {
		s.words(false, e.Text)
	}
	if more.Delta.Refusal != "" {
		s.words(true, more.Delta.Refusal)
	}
	for _, piece := range more.Delta.Calls {
		s.callPiece(piece)
	}
}

// words adds to the message.
func (s *ResponseScript) words(refusal bool, text string) {
	at, it := s.message()
	p, index := it.part(refusal)
	if p == nil {
		p, index = &outputPart{refusal: refusal}, len(it.parts)
		it.parts = append(it.parts, p)
		s.show("response.content_part.added", map[string]any{"item_id": it.id, "output_index": at, "content_index": index, "part": p.json()})
	}
	p.text = append(p.text, text...)
	if text == "" {
		return
	}
	about := map[string]any{"item_id": it.id, "output_index": at, "content_index": index, "delta": text}
	if refusal {
		s.show("response.refusal.delta", about)
		return
	}
	about["logprobs"] = []any{}
	s.show("response.output_text.delta", about)
}

// message is the message of the output, which begins if there is none.
func (s *ResponseScript) message() (index int, it *outputItem) {
	for i, it := range s.items {
		if it.call < 0 {
			return i, it
		}
	}
	return s.add(newMessage(s.response.Task))
}

func (s *ResponseScript) add(it *outputItem) (int, *outputItem) {
	at := len(s.items)
	s.show("response.output_item.added", map[string]any{"output_index": at, "item": it.json(responseInProgress)})
	s.items = append(s.items, it)
	return at, it
}

// maxCalls bounds what an index may make us keep.
const maxCalls = 1024

// callPiece adds to a call; one begins with the piece that has its name.
func (s *ResponseScript) callPiece(piece callPiece) {
	if piece.Index < 0 || piece.Index >= maxCalls {
		return
	}
	at, it := s.call(piece.Index)
	if it == nil {
		if piece.Function.Name == "" {
			return // the end has it
		}
		at, it = s.add(newCall(s.response.Task, piece.Index, piece.ID, piece.Function.Name))
	}
	s.arguments(at, it, piece.Function.Arguments)
}

func (s *ResponseScript) call(n int) (int, *outputItem) {
	for i, it := range s.items {
		if it.call == n {
			return i, it
		}
	}
	return 0, nil
}

func (s *ResponseScript) arguments(at int, it *outputItem, text string) {
	if text == "" {
		return
	}
	it.text = append(it.text, text...)
	s.show("response.function_call_arguments.delta", map[string]any{"item_id": it.id, "output_index": at, "delta": text})
}

// snapshot goes on with the text so far, if that is all there is; else the rest
// comes with the end.
func (s *ResponseScript) snapshot(text string) {
	var had []byte
	if len(s.items) == 1 && s.items[0].call < 0 && len(s.items[0].parts) == 1 && !s.items[0].parts[0].refusal {
		had = s.items[0].parts[0].text
	} else if len(s.items) > 0 {
		s.held = true
		return
	}
	rest, ok := bytes.CutPrefix([]byte(text), had)
	if !ok {
		s.held = true
		return
	}
	if len(rest) > 0 {
		s.words(false, string(rest))
	}
}

// End returns the last frames of a task that has ended: what was not shown yet of
// its output, and how the response ended. Err is ErrInterrupted when the output is
// another than what was shown.
func (s *ResponseScript) End(t api.Task) ([][]byte, error) {
	s.next = max(s.next, int64(t.Generation)*generationStep)
	b := s.response.body(t)
	if b.Status == responseCompleted || b.Status == responseIncomplete {
		items, _, err := outputOf(s.response.Task, t.Output)
		if err != nil {
			return nil, err
		}
		if err := s.whole(items, b.Status); err != nil {
			return s.take(), err
		}
	}
	s.next = max(s.next, s.p.After+1)
	s.lost = false // of the end everybody is told
	s.say("response."+b.Status, map[string]any{"response": b})
	return s.take(), nil
}

// whole shows what is left of an output, and that each item of it is done.
func (s *ResponseScript) whole(items []*outputItem, status string) error {
	if s.fence == 0 { // what an attempt may have told is not there any more
		s.lost = true
	}
	if s.begun >= 0 && (s.dead() || !s.continues(items)) {
		if err := s.void(); err != nil {
			return err
		}
	}
	s.p.Since = 0
	if !s.running {
		s.progress()
	}
	for _, it := range items {
		s.rest(it)
	}
	for at, it := range s.items {
		s.done(at, it, status)
	}
	return nil
}

// continues reports whether an output goes on where what was shown ends.
func (s *ResponseScript) continues(items []*outputItem) bool {
	for _, had := range s.items {
		i := indexOf(items, had.call)
		if i < 0 || !had.begins(items[i]) {
			return false
		}
	}
	return true
}

func indexOf(items []*outputItem, call int) int {
	for i, it := range items {
		if it.call == call {
			return i
		}
	}
	return -1
}

// begins reports whether an item is the beginning of another.
func (it *outputItem) begins(whole *outputItem) bool {
	if it.name != whole.name || it.callID != whole.callID || !bytes.HasPrefix(whole.text, it.text) {
		return false
	}
	for _, p := range it.parts {
		all, _ := whole.part(p.refusal)
		if all == nil || !bytes.HasPrefix(all.text, p.text) {
			return false
		}
	}
	return true
}

// rest shows what was not shown of an item.
func (s *ResponseScript) rest(whole *outputItem) {
	if whole.call >= 0 {
		at, it := s.call(whole.call)
		if it == nil {
			at, it = s.add(newCall(s.response.Task, whole.call, whole.callID, whole.name))
		}
		s.arguments(at, it, string(whole.text[len(it.text):]))
		return
	}
	_, it := s.message()
	for _, p := range whole.parts {
		had := 0
		if shown, _ := it.part(p.refusal); shown != nil {
			had = len(shown.text)
		}
		s.words(p.refusal, string(p.text[had:]))
	}
}

// done says that an item is whole.
func (s *ResponseScript) done(at int, it *outputItem, status string) {
	if it.call >= 0 {
		s.show("response.function_call_arguments.done", map[string]any{"item_id": it.id, "output_index": at, "arguments": string(it.text), "name": it.name})
	}
	for i, p := range it.parts {
		about := map[string]any{"item_id": it.id, "output_index": at, "content_index": i}
		if p.refusal {
			about["refusal"] = string(p.text)
			s.show("response.refusal.done", about)
		} else {
			about["text"], about["logprobs"] = string(p.text), []any{}
			s.show("response.output_text.done", about)
		}
		s.show("response.content_part.done", map[string]any{"item_id": it.id, "output_index": at, "content_index": i, "part": p.json()})
	}
	s.show("response.output_item.done", map[string]any{"output_index": at, "item": it.json(status)})
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
