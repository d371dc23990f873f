package ledger

import (
	"fmt"
	"strings"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
)

// streamLog is what one watcher of a task was shown, over all its connections.
// The book's lock guards it.
type streamLog struct {
	entry Entry
	last  event.ID
	fence event.Fence
	next  uint64 // sequence that must come in this fence
	text  strings.Builder
	holed bool // a gap was told in this fence: its text proves nothing
	ended int

	events, restarts, gaps, snapshots int
	verdict                           textVerdict
}

// textVerdict compares the pieces of the last fence with the terminal's text.
type textVerdict string

const (
	textWhole   textVerdict = "whole"    // the pieces make the text
	textShort   textVerdict = "short"    // they are its beginning: the stream ended early
	textHoled   textVerdict = "gap told" // pieces are missing, and the reader was told so
	textNothing textVerdict = "no text"  // the terminal has none, or no terminal came
)

// take judges one event, in the order it arrived.
func (s *streamLog) take(b *Book, e event.Event) {
	id := s.entry.ID
	switch {
	case e.Type == event.Reconnect:
		return
	case e.TaskID != id:
		b.find("I7", id, "its stream carries an event of "+string(e.TaskID))
		return
	case !s.last.Less(e.ID) && e.Type.Terminal():
		b.find("I2", id, fmt.Sprintf("the stream shows the terminal %s after %s", e.ID, s.last))
		return
	case !s.last.Less(e.ID):
		b.find("I4", id, fmt.Sprintf("event %s (%s) comes after %s", e.ID, e.Type, s.last))
		return
	}
	s.events++
	s.last = e.ID
	switch {
	case e.Type == event.Queued:
	case e.Type.Terminal():
		s.end(b, e)
	default:
		s.piece(b, e)
	}
}

// piece follows the fence: within one the sequence has no holes, a new one is
// told by restart.
func (s *streamLog) piece(b *Book, e event.Event) {
	switch first := s.fence == 0; {
	case s.fence == e.ID.Fence:
	case !first && e.Type != event.Restart:
		b.find("I4", s.entry.ID, fmt.Sprintf("fence %s follows %s with %s instead of restart", e.ID.Fence, s.fence, e.Type))
		s.begin(e.ID)
	default:
		s.begin(e.ID)
	}
	switch e.Type {
	case event.Snapshot:
		s.snapshots++
		s.text.Reset()
	case event.Gap:
		s.gaps++
		s.holed = true
	case event.Restart:
		s.restarts++
		fallthrough
	default:
		if e.ID.Seq != s.next {
			b.find("I4", s.entry.ID, fmt.Sprintf("event %s comes where sequence %d was due", e.ID, s.next))
		}
	}
	s.next = e.ID.Seq + 1
	s.text.WriteString(e.Text)
}

func (s *streamLog) begin(at event.ID) {
	s.fence, s.next, s.holed = at.Fence, 0, false
	s.text.Reset()
}

// end compares what was shown with the terminal.
func (s *streamLog) end(b *Book, e event.Event) {
	if s.ended++; s.ended > 1 {
		b.find("I2", s.entry.ID, fmt.Sprintf("the stream shows %d terminals", s.ended))
	}
	s.verdict = textNothing
	if e.Result == nil {
		b.find("I3", s.entry.ID, "the terminal event carries no result")
		return
	}
	b.ended("stream", s.entry.ID, endOf(api.OfTerminal(e.Result, e.ID.Fence.Generation())))
	if e.Result.Output == nil {
		return
	}
	shown, want := s.text.String(), e.Result.Output.Text
	switch {
	case s.holed:
		s.verdict = textHoled
	case shown == want:
		s.verdict = textWhole
	case strings.HasPrefix(want, shown):
		s.verdict = textShort
	default:
		b.find("I4", s.entry.ID, fmt.Sprintf("the pieces of fence %s make %q, the terminal says %q", s.fence, shown, want))
	}
}

// watching begins the log of a task's stream.
func (b *Book) watching(e Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.streams[e.ID] = &streamLog{entry: e, verdict: textNothing}
}

// watched judges an event of a watched task, and reports whether it was the
// last.
func (b *Book) watched(e Entry, ev event.Event) (last event.ID, done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streams[e.ID]
	s.take(b, ev)
	return s.last, s.ended > 0
}

// StreamCounts sum up what the watchers were shown.
type StreamCounts struct {
	Streams, Ended                    int
	Events, Restarts, Gaps, Snapshots int
	MostRestarts                      int // of one task: restarts and gaps
	Texts                             map[string]int
}

func (b *Book) streamCounts() StreamCounts {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := StreamCounts{Streams: len(b.streams), Texts: map[string]int{}}
	for _, s := range b.streams {
		c.Events, c.Restarts, c.Gaps, c.Snapshots = c.Events+s.events, c.Restarts+s.restarts, c.Gaps+s.gaps, c.Snapshots+s.snapshots
		c.MostRestarts = max(c.MostRestarts, s.restarts+s.gaps)
		if s.ended > 0 {
			c.Ended++
			c.Texts[string(s.verdict)]++
		}
	}
	return c
}
