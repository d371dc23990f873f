package openai_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// told is one event of a response as its reader has it.
type told struct {
	Type   string `json:"type"`
	Number int64  `json:"sequence_number"`
	Delta  string `json:"delta"`
	Text   string `json:"text"`
	ItemID string `json:"item_id"`
	frame  string
}

// reading is what came of a stream, and how it ended.
type reading struct {
	events []told
	err    error
}

func (r *reading) add(tb rapid.TB, frames ...[]byte) {
	tb.Helper()
	for _, f := range frames {
		head, rest, _ := bytes.Cut(f, []byte("\ndata: "))
		data, ok := bytes.CutSuffix(rest, []byte("\n\n"))
		e := told{frame: string(f)}
		if err := json.Unmarshal(data, &e); err != nil || !ok || string(head) != "event: "+e.Type || bytes.ContainsRune(data, '\n') {
			tb.Fatalf("%v in %q", err, f)
		}
		r.events = append(r.events, e)
	}
}

// numbers are the numbers of the events, in order.
func (r *reading) last() int64 {
	if len(r.events) == 0 {
		return -1
	}
	return r.events[len(r.events)-1].Number
}

// tell runs a script over events and, if there is one, an end.
func tell(tb rapid.TB, r openai.Response, v openai.ResponseView, events []event.Event, end *api.Task) (out reading) {
	tb.Helper()
	s := openai.NewResponseScript(r, v)
	out.add(tb, s.Begin()...)
	for _, e := range events {
		frames, err := s.Tell(e)
		out.add(tb, frames...)
		if err != nil {
			out.err = err
			out.add(tb, s.Interrupted())
			return out
		}
	}
	if end == nil {
		return out
	}
	frames, err := s.End(*end)
	out.add(tb, frames...)
	if out.err = err; err != nil {
		out.add(tb, s.Interrupted())
	}
	return out
}

// at gives an event its id.
func at(fence event.Fence, seq int, e event.Event) event.Event {
	e.ID = event.ID{Fence: fence, Seq: uint64(seq)}
	return e
}

// attempt is the events of one, from its beginning.
func attempt(fence event.Fence, events ...event.Event) []event.Event {
	out := []event.Event{at(fence, 0, event.Event{Type: event.Started})}
	for i, e := range events {
		out = append(out, at(fence, i+1, e))
	}
	return out
}

func succeededWith(out task.Output) *api.Task {
	return &api.Task{Status: task.Succeeded, Output: &out, EndedAt: endedAt(9), Usage: &task.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3}}
}

func TestAStreamedResponseIsAsItIsWritten(t *testing.T) {
	for name, tc := range map[string]struct {
		body   string
		events []event.Event
		end    *api.Task
	}{
		"text": {
			`{"model":"m","input":"hi"}`,
			attempt(1, delta(0, "a", ""), delta(0, "b", ""), delta(1, "of no choice", "")),
			succeededWith(task.Output{Text: "abc", FinishReason: "stop"}),
		},
		"calls": {
			`{"model":"m","input":"hi","background":true}`,
			attempt(1,
				delta(0, "", `{"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]}}`),
				delta(0, "", `{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}}`)),
			succeededWith(task.Output{FinishReason: "tool_calls", Choices: json.RawMessage(`[{"finish_reason":"tool_calls","message":{"content":null,
				"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"a\":1}"}}]}}]`)}),
		},
		"refused": {
			`{"model":"m","input":"hi"}`,
			attempt(1, delta(0, "", `{"delta":{"refusal":"n"}}`)),
			succeededWith(task.Output{Choices: json.RawMessage(`[{"finish_reason":"stop","message":{"content":null,"refusal":"no"}}]`)}),
		},
		"failed": {
			`{"model":"m","input":"hi"}`,
			attempt(1, delta(0, "a", "")),
			&api.Task{Status: task.Dead, Error: &terminal.Error{Code: fault.Unavailable, Message: "no"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := tell(t, responseOf(t, tc.body), openai.ResponseView{After: -1}, tc.events, tc.end)
			var all strings.Builder
			for _, e := range got.events {
				all.WriteString(e.frame)
			}
			file := "testdata/response_" + name + ".sse"
			want, err := os.ReadFile(file)
			if err != nil {
				if err := os.WriteFile(file, []byte(all.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				t.Fatalf("%v: written anew", err)
			}
			if diff := cmp.Diff(string(want), all.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// saga is the whole life of a task.
type saga struct {
	response openai.Response
	events   []event.Event
	starts   []int // of the attempts, in events
	text     string
	end      *api.Task
}

// newest is the fence of the newest attempt that a reader who joins after so many
// events can know of.
func (s saga) newest(have int) event.Fence {
	if have == 0 {
		return 0
	}
	return s.events[have-1].ID.Fence
}

// twoResponses are one that is waited for, and one that is not.
func twoResponses(tb testing.TB) []openai.Response {
	tb.Helper()
	return []openai.Response{responseOf(tb, `{"model":"m","input":"hi"}`), responseOf(tb, `{"model":"m","input":"hi","background":true}`)}
}

func anySaga(t *rapid.T, of []openai.Response) saga {
	s := saga{response: rapid.SampledFrom(of).Draw(t, "response")}
	words := rapid.StringMatching(`[a-zé ]{1,4}`)
	attempts := rapid.IntRange(1, 4).Draw(t, "attempts")
	for n := range attempts {
		fence := event.Fence(10 * (n + 1))
		pieces := rapid.SliceOfN(words, 0, 5).Draw(t, "pieces")
		var events []event.Event
		for _, p := range pieces {
			events = append(events, delta(0, p, ""))
		}
		s.starts = append(s.starts, len(s.events))
		s.events = append(s.events, attempt(fence, events...)...)
		s.text = strings.Join(pieces, "")
	}
	s.end = succeededWith(task.Output{Text: s.text + rapid.StringMatching(`[a-z]{0,3}`).Draw(t, "unsent"), FinishReason: "stop"})
	s.text = s.end.Output.Text
	if rapid.IntRange(0, 9).Draw(t, "other") == 0 {
		s.text = "another text altogether"
		s.end.Output.Text = s.text
	}
	return s
}

// all is every event of the saga, those of void output too.
func (s saga) all(t rapid.TB) reading {
	return tell(t, s.response, openai.ResponseView{After: -1, Ended: true}, s.events, s.end)
}

func rising(t rapid.TB, events []told) {
	t.Helper()
	for i := 1; i < len(events); i++ {
		if events[i].Number <= events[i-1].Number {
			t.Fatalf("%s is %d after %d", events[i].Type, events[i].Number, events[i-1].Number)
		}
	}
}

// textOf is what a reader makes of events, who forgets on response.in_progress.
func textOf(events []told) (text string) {
	for _, e := range events {
		switch e.Type {
		case "response.in_progress":
			text = ""
		case "response.output_text.delta":
			text += e.Delta
		}
	}
	return text
}

// Whoever comes back after any event, to any replica, gets exactly the rest.
func TestAResponseGoesOnAfterAnyCut(t *testing.T) {
	both := twoResponses(t)
	rapid.Check(t, func(r *rapid.T) {
		s := anySaga(r, both)
		all := s.all(r)
		rising(r, all.events)
		if all.err != nil || textOf(all.events) != s.text {
			r.Fatalf("%v, read %q, want %q", all.err, textOf(all.events), s.text)
		}
		for i := range all.events {
			after := all.events[i].Number
			got := tell(r, s.response, openai.ResponseView{After: after, Ended: true}, s.events, s.end)
			rest := slices.Clone(all.events[i+1:])
			if len(rest) == 0 { // it had the end: it is told again, since no stream ends without
				if len(got.events) != 1 || got.events[0].Type != "response.completed" || got.events[0].Number <= after {
					r.Fatalf("after the end: %v", got.events)
				}
				continue
			}
			if diff := cmp.Diff(rest, got.events, cmp.AllowUnexported(told{})); diff != "" || got.err != nil {
				r.Fatalf("after %d: %v %s", after, got.err, diff)
			}
		}
	})
}

// A reader that is connected while attempts begin anew, is cut at any time, and
// comes back to any replica, reads numbers that only rise and in the end the text.
func TestAReaderWhoComesBackReadsTheText(t *testing.T) {
	both := twoResponses(t)
	rapid.Check(t, func(r *rapid.T) {
		s := anySaga(r, both)
		numbered := map[int64]string{}
		for _, e := range s.all(r).events {
			numbered[e.Number] = e.frame
		}
		var events []told
		joined := 0 // events of the task that there are when the reader comes
		for connection := 0; ; connection++ {
			if connection > 40 {
				r.Fatal("it never ends")
			}
			joined = rapid.IntRange(joined, len(s.events)).Draw(r, "joined")
			leaves := rapid.IntRange(joined, len(s.events)).Draw(r, "leaves")
			stays := rapid.Bool().Draw(r, "stays")
			v := openai.ResponseView{After: -1, Since: s.newest(joined)}
			if len(events) > 0 {
				v.After = events[len(events)-1].Number
			}
			var end *api.Task
			if stays {
				leaves, end = len(s.events), s.end
			}
			got := tell(r, s.response, v, s.events[:leaves], end)
			if got.err != nil {
				if last := got.events[len(got.events)-1]; !errors.Is(got.err, openai.ErrInterrupted) || last.Type != "error" || !strings.Contains(last.frame, "generation_interrupted") {
					r.Fatalf("%v, %+v", got.err, last)
				}
				got.events = got.events[:len(got.events)-1] // clients raise it, and do not keep its number
				for joined < leaves && s.newest(joined) <= v.Since {
					joined++ // what interrupted it is there for whoever comes now
				}
			}
			events = append(events, got.events...)
			if got.err == nil {
				joined = leaves // what it was told is there for whoever comes now
			}
			if end != nil && got.err == nil {
				break
			}
			if got.err != nil && joined == len(s.events) { // the end itself was another: it is known now
				v := openai.ResponseView{After: -1, Since: s.newest(joined), Ended: true}
				if len(events) > 0 {
					v.After = events[len(events)-1].Number
				}
				events = append(events, tell(r, s.response, v, s.events, s.end).events...)
				break
			}
		}
		rising(r, events)
		if got := textOf(events); got != s.text {
			r.Fatalf("read %q, want %q", got, s.text)
		}
		for _, e := range events {
			if numbered[e.Number] != e.frame {
				r.Fatalf("%d is %s, elsewhere %s", e.Number, e.frame, numbered[e.Number])
			}
		}
	})
}

func TestWhoHasSeenOutputThatIsVoidIsInterrupted(t *testing.T) {
	r := responseOf(t, `{"model":"m","input":"hi"}`)
	events := append(attempt(1, delta(0, "dead", "")), attempt(2, delta(0, "live", ""))...)
	end := succeededWith(task.Output{Text: "live", FinishReason: "stop"})
	for name, tc := range map[string]struct {
		view   openai.ResponseView
		events []event.Event
		told   bool
	}{
		"here":                          {openai.ResponseView{After: -1}, events, true},
		"before it came back":           {openai.ResponseView{After: 4, Since: 1}, events, true},
		"and knows that it is void":     {openai.ResponseView{After: 4, Since: 2}, events, false},
		"of none of it":                 {openai.ResponseView{After: 1, Since: 2}, events, false},
		"that the end has not":          {openai.ResponseView{After: -1}, events[:2], true},
		"of a task that has ended then": {openai.ResponseView{After: 4, Since: 1, Ended: true}, events[:2], false},
	} {
		got := tell(t, r, tc.view, tc.events, end)
		last := got.events[len(got.events)-1]
		if interrupted := errors.Is(got.err, openai.ErrInterrupted); interrupted != tc.told || interrupted != (last.Type == "error") || last.Number <= tc.view.After {
			t.Errorf("%s: %v, last %s %d", name, got.err, last.Type, last.Number)
		}
		if !tc.told && textOf(got.events) != "live" {
			t.Errorf("%s: read %q", name, textOf(got.events))
		}
	}
}

func TestWhoComesLateIsNotToldVoidOutput(t *testing.T) {
	r := responseOf(t, `{"model":"m","input":"hi","background":true}`)
	events := append(attempt(1, delta(0, "dead", "")), attempt(2, delta(0, "live", ""))...)
	got := tell(t, r, openai.ResponseView{After: -1, Since: 2}, events, succeededWith(task.Output{Text: "live", FinishReason: "stop"}))
	var types []string
	for _, e := range got.events {
		types = append(types, e.Type)
		if strings.Contains(e.frame, "dead") {
			t.Errorf("told %s", e.frame)
		}
	}
	want := []string{
		"response.created", "response.queued", "response.in_progress", "response.in_progress", "response.output_item.added", "response.content_part.added",
		"response.output_text.delta", "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
	}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Error(diff)
	}
}

func TestWhereEventsAreLostAReaderWhoResumedIsToldTheEndAlone(t *testing.T) {
	r := responseOf(t, `{"model":"m","input":"hi"}`)
	end := succeededWith(task.Output{Text: "abc", FinishReason: "stop"})
	for name, events := range map[string][]event.Event{
		"a gap":            attempt(1, delta(0, "a", ""), event.Event{Type: event.Gap}, delta(0, "c", "")),
		"a snapshot":       {at(1, 3, event.Event{Type: event.Snapshot, Text: "ab"}), at(1, 4, delta(0, "c", ""))},
		"nothing is there": nil,
	} {
		t.Run(name, func(t *testing.T) {
			for _, after := range []int64{2, 3, 5, 40} {
				got := tell(t, r, openai.ResponseView{After: after}, events, end)
				n := len(got.events)
				if n == 0 || got.events[n-1].Type != "response.completed" || got.events[n-1].Number <= after || !strings.Contains(got.events[n-1].frame, `"text":"abc"`) {
					t.Fatalf("after %d: %+v", after, got)
				}
				for _, e := range got.events[:n-1] {
					if e.Number <= after || name != "a gap" {
						t.Errorf("after %d it was told %s", after, e.frame)
					}
				}
			}
			all := tell(t, r, openai.ResponseView{After: -1}, events, end)
			if textOf(all.events) != "abc" || all.err != nil {
				t.Errorf("who reads all gets %q, %v", textOf(all.events), all.err)
			}
		})
	}
}

// A replica of Redis took over without the last events of an attempt, whose worker
// has died; or without all of them.
func TestNumbersOfAnAttemptThatIsLostAreNotThoseOfTheNext(t *testing.T) {
	r := responseOf(t, `{"model":"m","input":"hi","background":true}`)
	end := succeededWith(task.Output{Text: "live", FinishReason: "stop"})
	dead := attempt(1, delta(0, "a", ""), delta(0, "b", ""), delta(0, "c", ""), delta(0, "d", ""))
	live := attempt(2, delta(0, "li", ""), delta(0, "ve", ""))
	had := tell(t, r, openai.ResponseView{After: -1}, dead, nil)
	for kept := 1; kept < len(dead); kept++ {
		got := tell(t, r, openai.ResponseView{After: had.last(), Since: 2}, append(slices.Clone(dead[:kept]), live...), end)
		if got.err != nil || textOf(got.events) != "live" || got.events[0].Type != "response.in_progress" || got.events[0].Number <= had.last() {
			t.Errorf("with %d events: %+v", kept, got)
		}
	}
	for name, v := range map[string]openai.ResponseView{
		"Redis was emptied":                 {After: had.last(), Since: 2, Lost: true},
		"it began since the reader came":    {After: had.last(), Since: 1},
		"the reader has seen a later one's": {After: 1 << 17, Since: 2},
	} {
		got := tell(t, r, v, live, end)
		if len(got.events) != 1 || got.events[0].Type != "response.completed" || got.events[0].Number <= v.After || got.err != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAResponseThatIsPutBackToWorkGoesOnAboveItsEnd(t *testing.T) {
	r := responseOf(t, `{"model":"m","input":"hi","background":true}`)
	before := tell(t, r, openai.ResponseView{After: -1}, attempt(1, delta(0, "a", "")), &api.Task{Status: task.Dead})
	fence, err := event.NewFence(1, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := succeededWith(task.Output{Text: "b", FinishReason: "stop"})
	end.Generation = 1
	after := tell(t, r, openai.ResponseView{After: before.last()}, attempt(fence, delta(0, "b", "")), end)
	rising(t, append(before.events, after.events...))
	if after.events[0].Type != "response.in_progress" || textOf(after.events) != "b" {
		t.Errorf("%+v", after.events)
	}
}

func TestAnAttemptThatSaidNothingIsRepeatedUnseen(t *testing.T) {
	r := responseOf(t, `{"model":"m","input":"hi"}`)
	events := append(attempt(1), attempt(2, delta(0, "a", ""))...)
	got := tell(t, r, openai.ResponseView{After: -1}, events, succeededWith(task.Output{Text: "a", FinishReason: "stop"}))
	if got.err != nil || len(got.events) != 10 || got.last() != 1<<16+7 {
		t.Errorf("%v, %+v", got.err, got.events)
	}
}

func FuzzResponseScript(f *testing.F) {
	f.Add("a", `{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"x"}}]}}`, `[{"index":0,"message":{"content":"ab"},"finish_reason":"stop"}]`, int64(3))
	f.Add("", `{"delta":{"refusal":"r"}}`, `[{"index":0,"message":{"content":null,"tool_calls":[null]},"finish_reason":"stop"},null]`, int64(-1))
	r := responseOf(f, `{"model":"m","input":"hi"}`)
	f.Fuzz(func(t *testing.T, text, choice, choices string, after int64) {
		if !json.Valid([]byte(choice)) || !json.Valid([]byte(choices)) || after < -1 || after > 1<<40 {
			t.Skip("what a worker never writes, or a reader may not ask")
		}
		got := tell(t, r, openai.ResponseView{After: after}, attempt(1, delta(0, text, choice)), succeededWith(task.Output{Choices: json.RawMessage(choices)}))
		rising(t, got.events)
		if got.last() <= after {
			t.Errorf("ends with %d, after %d was named", got.last(), after)
		}
	})
}
