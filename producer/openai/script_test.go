package openai_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// answer is what a client makes of the chunks of a stream.
type answer struct {
	roles    map[int]int
	text     map[int]string
	refusal  map[int]string
	thoughts map[int]string
	tools    map[int]map[int]string // name and arguments, by choice and call
	logprobs map[int]int
	finish   map[int]string
	usage    *task.Usage
}

func newAnswer() *answer {
	return &answer{
		roles: map[int]int{}, text: map[int]string{}, refusal: map[int]string{}, thoughts: map[int]string{},
		tools: map[int]map[int]string{}, logprobs: map[int]int{}, finish: map[int]string{},
	}
}

func (a *answer) read(t rapid.TB, chunk []byte) {
	t.Helper()
	var c struct {
		Choices []struct {
			Index int    `json:"index"`
			Text  string `json:"text"`
			Delta struct {
				Role      string `json:"role"`
				Content   string `json:"content"`
				Refusal   string `json:"refusal"`
				Reasoning string `json:"reasoning_content"`
				ToolCalls []struct {
					Index    int `json:"index"`
					Function struct{ Name, Arguments string }
				} `json:"tool_calls"`
			} `json:"delta"`
			LogProbs struct {
				Content []json.RawMessage `json:"content"`
				Tokens  []json.RawMessage `json:"tokens"`
			} `json:"logprobs"`
			FinishReason string `json:"finish_reason"`
		} `json:"choices"`
		Usage *task.Usage `json:"usage"`
	}
	if err := json.Unmarshal(chunk, &c); err != nil {
		t.Fatalf("%v in %s", err, chunk)
	}
	for _, one := range c.Choices {
		if one.Delta.Role != "" {
			a.roles[one.Index]++
		}
		a.text[one.Index] += one.Text + one.Delta.Content
		a.refusal[one.Index] += one.Delta.Refusal
		a.thoughts[one.Index] += one.Delta.Reasoning
		a.logprobs[one.Index] += len(one.LogProbs.Content) + len(one.LogProbs.Tokens)
		for _, call := range one.Delta.ToolCalls {
			if a.tools[one.Index] == nil {
				a.tools[one.Index] = map[int]string{}
			}
			a.tools[one.Index][call.Index] += call.Function.Name + call.Function.Arguments
		}
		if one.FinishReason != "" {
			a.finish[one.Index] = one.FinishReason
		}
	}
	if c.Usage != nil {
		a.usage = c.Usage
	}
}

func delta(index int, text, more string) event.Event {
	e := event.Event{Type: event.Delta, Index: index, Text: text}
	if more != "" {
		e.Choice = json.RawMessage(more)
	}
	return e
}

func TestAStreamInChunks(t *testing.T) {
	s := openai.NewScript(head(task.Chat), true)
	for _, silent := range []event.Event{{Type: event.Queued}, {Type: event.Started}, {Type: event.Restart}, {Type: event.UsageSeen}} {
		if chunk, err := s.Tell(silent); chunk != nil || err != nil || s.Began() {
			t.Errorf("%s: %s, %v", silent.Type, chunk, err)
		}
	}
	first, err := s.Tell(delta(0, "a", ""))
	if err != nil || !s.Began() {
		t.Fatal(err)
	}
	sameJSON(t, `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","usage":null,
	"choices":[{"index":0,"delta":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":null}]}`, first)
	second, _ := s.Tell(delta(0, "", `{"delta":{"tool_calls":[{"index":0}]},"logprobs":{"content":[1]}}`))
	sameJSON(t, `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","usage":null,
	"choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]},"logprobs":{"content":[1]},"finish_reason":null}]}`, second)
	rest, err := s.End(&task.Output{Text: "ab", FinishReason: "stop"}, &task.Usage{TotalTokens: 2})
	if err != nil || len(rest) != 3 {
		t.Fatalf("%s, %v", rest, err)
	}
	for i, want := range []string{
		`"choices":[{"index":0,"delta":{"content":"b"},"logprobs":null,"finish_reason":null}]`,
		`"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]`,
		`"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":2}`,
	} {
		if i < 2 {
			want += `,"usage":null`
		}
		sameJSON(t, `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m",`+want+`}`, rest[i])
	}
}

func TestACompletionInChunks(t *testing.T) {
	s := openai.NewScript(head(task.Completion), false)
	chunk, _ := s.Tell(delta(1, "x", ""))
	sameJSON(t, `{"id":"cmpl-1","object":"text_completion","created":7,"model":"m","choices":[{"index":1,"text":"x","logprobs":null,"finish_reason":null}]}`, chunk)
}

func TestAnAnswerThatBeginsAnewIsNotJoined(t *testing.T) {
	for name, tc := range map[string]struct {
		after func(s *openai.Script) error
	}{
		"a new attempt": {func(s *openai.Script) error { _, err := s.Tell(event.Event{Type: event.Restart}); return err }},
		"an end with another text": {func(s *openai.Script) error {
			_, err := s.End(&task.Output{Text: "other", FinishReason: "stop"}, nil)
			return err
		}},
		"an end with fewer choices": {func(s *openai.Script) error {
			if _, err := s.Tell(delta(1, "b", "")); err != nil {
				return nil
			}
			_, err := s.End(&task.Output{Text: "a", FinishReason: "stop"}, nil)
			return err
		}},
		"an end with a shorter refusal": {func(s *openai.Script) error {
			if _, err := s.Tell(delta(0, "", `{"delta":{"refusal":"no, never"}}`)); err != nil {
				return nil
			}
			_, err := s.End(&task.Output{Choices: json.RawMessage(`[{"index":0,"message":{"content":"a","refusal":"no"},"finish_reason":"stop"}]`)}, nil)
			return err
		}},
	} {
		s := openai.NewScript(head(task.Chat), false)
		if _, err := s.Tell(delta(0, "a", "")); err != nil {
			t.Fatal(err)
		}
		if err := tc.after(s); !errors.Is(err, openai.ErrInterrupted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASnapshotGoesOnWhereItCan(t *testing.T) {
	s := openai.NewScript(head(task.Completion), false)
	got := newAnswer()
	for _, e := range []event.Event{
		delta(0, "one ", ""), {Type: event.Snapshot, Text: "one two "}, delta(0, "three", ""), {Type: event.Snapshot, Text: "one two three"},
	} {
		chunk, err := s.Tell(e)
		if err != nil {
			t.Fatal(err)
		}
		if chunk != nil {
			got.read(t, chunk)
		}
	}
	if got.text[0] != "one two three" {
		t.Errorf("read %q", got.text[0])
	}
	if chunk, err := s.Tell(event.Event{Type: event.Snapshot, Text: "another"}); chunk != nil || err != nil {
		t.Errorf("%s, %v", chunk, err)
	}
	if chunk, _ := s.Tell(delta(0, "lost", "")); chunk != nil {
		t.Errorf("after a hole it told %s", chunk)
	}
}

// whole is an answer of some choices, and its events.
type whole struct {
	out    *task.Output
	events []event.Event
	want   *answer
}

func anyWhole(t *rapid.T) whole {
	w := whole{want: newAnswer()}
	choices := make([]any, rapid.IntRange(1, 3).Draw(t, "choices"))
	words := rapid.StringMatching(`[a-zé ]{1,6}`)
	for i := range choices {
		var logprobs []any
		for range rapid.IntRange(1, 5).Draw(t, "tokens") {
			token := words.Draw(t, "token")
			w.events = append(w.events, delta(i, token, `{"logprobs":{"content":[{"logprob":-1}]}}`))
			w.want.text[i] += token
			logprobs = append(logprobs, map[string]int{"logprob": -1})
		}
		var calls []any
		for j := range rapid.IntRange(0, 2).Draw(t, "tools") {
			opening, arguments := fmt.Sprintf("f%d", j), words.Draw(t, "arguments")
			w.events = append(w.events,
				delta(i, "", fmt.Sprintf(`{"delta":{"tool_calls":[{"index":%d,"id":"c","function":{"name":%q,"arguments":""}}]}}`, j, opening)),
				delta(i, "", fmt.Sprintf(`{"delta":{"tool_calls":[{"index":%d,"function":{"arguments":%q}}]}}`, j, arguments)))
			if w.want.tools[i] == nil {
				w.want.tools[i] = map[int]string{}
			}
			w.want.tools[i][j] = opening + arguments
			calls = append(calls, map[string]any{"index": j, "id": "c", "function": map[string]string{"name": opening, "arguments": arguments}})
		}
		thoughts := words.Draw(t, "thoughts")
		w.events = append(w.events, delta(i, "", fmt.Sprintf(`{"delta":{"reasoning":%q}}`, thoughts)))
		message := map[string]any{"content": w.want.text[i], "reasoning_content": thoughts}
		if calls != nil {
			message["tool_calls"] = calls
		}
		w.want.logprobs[i] = len(logprobs)
		choices[i] = map[string]any{"index": i, "finish_reason": "stop", "message": message, "logprobs": map[string]any{"content": logprobs}}
	}
	raw, err := json.Marshal(choices)
	if err != nil {
		t.Fatal(err)
	}
	w.out = &task.Output{Text: w.want.text[0], FinishReason: "stop", Choices: raw}
	return w
}

// However much of the events is lost, and from where on, the end makes the
// answer whole, and nothing is told twice.
func TestTheEndMakesAnAnswerWholeWhateverWasLost(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := anyWhole(r)
		s := openai.NewScript(head(task.Chat), true)
		got := newAnswer()
		tell := func(e event.Event) {
			chunk, err := s.Tell(e)
			if err != nil {
				r.Fatal(err)
			}
			if chunk != nil {
				got.read(r, chunk)
			}
		}
		from := rapid.IntRange(0, len(w.events)).Draw(r, "lost from")
		to := rapid.IntRange(from, len(w.events)).Draw(r, "lost to")
		for _, e := range w.events[:from] {
			tell(e)
		}
		if from < to {
			tell(event.Event{Type: event.Gap})
		}
		for _, e := range w.events[to:] {
			tell(e)
		}
		rest, err := s.End(w.out, &task.Usage{TotalTokens: 1})
		if err != nil {
			r.Fatal(err)
		}
		for _, chunk := range rest {
			got.read(r, chunk)
		}
		for i := range w.want.text {
			if got.text[i] != w.want.text[i] || got.finish[i] != "stop" || got.roles[i] != 1 || got.logprobs[i] != w.want.logprobs[i] {
				r.Errorf("choice %d: text %q, finish %q, %d roles, %d logprobs; want %q and %d", i, got.text[i], got.finish[i], got.roles[i], got.logprobs[i], w.want.text[i], w.want.logprobs[i])
			}
			for j, call := range w.want.tools[i] {
				if got.tools[i][j] != call {
					r.Errorf("choice %d calls %q, want %q", i, got.tools[i][j], call)
				}
			}
			if len(got.tools[i]) != len(w.want.tools[i]) {
				r.Errorf("choice %d has %d calls", i, len(got.tools[i]))
			}
		}
		if got.usage == nil {
			r.Error("no usage")
		}
	})
}

func FuzzScript(f *testing.F) {
	f.Add("a", `{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"x"}}]}}`, `[{"index":0,"message":{"content":"ab"},"finish_reason":"stop"}]`)
	f.Add("", `{"logprobs":{"content":[1]}}`, `[{"index":0,"message":{"content":"ab","tool_calls":[null]},"finish_reason":"stop"},null]`)
	f.Fuzz(func(t *testing.T, text, choice, choices string) {
		if !json.Valid([]byte(choice)) || !json.Valid([]byte(choices)) {
			t.Skip("what a worker never writes")
		}
		s := openai.NewScript(head(task.Chat), true)
		chunk, err := s.Tell(delta(0, text, choice))
		if err == nil && chunk != nil && (!json.Valid(chunk) || strings.Contains(string(chunk), "\n")) {
			t.Errorf("chunk %s", chunk)
		}
		rest, err := s.End(&task.Output{Choices: json.RawMessage(choices)}, nil)
		for _, chunk := range rest {
			if err != nil || !json.Valid(chunk) || strings.Contains(string(chunk), "\n") {
				t.Errorf("chunk %s, %v", chunk, err)
			}
		}
	})
}
