package client

import (
	"slices"
	"strings"

	"github.com/penstock/penstock/schema/event"
)

// Text puts together the text of one task's answer from its events. The zero
// value has none yet. Whatever was lost or repeated on the way, it is the
// answer's own text once the task has succeeded.
type Text struct {
	choices map[int]*strings.Builder
	holed   bool
	ended   bool
}

// Add takes the next event of the task and says what changes on a screen that
// shows the first choice: the text to append or, with anew, to show instead of
// all that is there.
func (t *Text) Add(e event.Event) (show string, anew bool) {
	switch {
	case e.Type == event.Delta:
		t.choice(e.Index).WriteString(e.Text)
		if e.Index == 0 {
			show = e.Text
		}
		return show, false
	case e.Type == event.Snapshot, e.Type == event.Restart:
		anew = t.String() != ""
		t.begin(e.Text)
		return e.Text, anew
	case e.Type == event.Gap:
		t.holed = true
	case e.Type.Terminal():
		return t.end(e)
	}
	return "", false
}

// end replaces what was streamed by what the answer is, where they differ.
func (t *Text) end(e event.Event) (show string, anew bool) {
	t.ended = true
	if e.Result == nil || e.Result.Output == nil {
		return "", false
	}
	whole, shown := e.Result.Output.Text, t.String()
	t.holed = false
	if whole == shown || whole == "" {
		return "", false
	}
	rest, more := strings.CutPrefix(whole, shown)
	t.choice(0).Reset()
	t.choice(0).WriteString(whole)
	if more {
		return rest, false
	}
	return whole, true
}

func (t *Text) begin(text string) {
	t.choices, t.holed = nil, false
	t.choice(0).WriteString(text)
}

func (t *Text) choice(i int) *strings.Builder {
	b := t.choices[i]
	if b == nil {
		if t.choices == nil {
			t.choices = map[int]*strings.Builder{}
		}
		b = new(strings.Builder)
		t.choices[i] = b
	}
	return b
}

// String returns the first choice as far as it is known.
func (t *Text) String() string { return t.Choice(0) }

// Choice returns one choice as far as it is known. The end brings the whole of
// the first only: for others read the choices of the output.
func (t *Text) Choice(i int) string {
	if b := t.choices[i]; b != nil {
		return b.String()
	}
	return ""
}

// Choices returns the indexes of the choices that have been streamed, in order.
func (t *Text) Choices() []int {
	out := make([]int, 0, len(t.choices))
	for i := range t.choices {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

// Whole reports that nothing is missing and nothing more will come.
func (t *Text) Whole() bool { return t.ended && !t.holed }
