package conversation_test

import (
	"encoding/json"
	"testing"

	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/task"
)

func TestTextsThatNobodyCountedAreGuessed(t *testing.T) {
	for bytes, want := range map[int]int{0: 0, 1: 1, 4: 1, 5: 2, 4096: 1024} {
		if got := conversation.Guess(bytes); got != want {
			t.Errorf("%d bytes are %d tokens; want %d", bytes, got, want)
		}
	}
}

func TestAnAnswerIsRemembered(t *testing.T) {
	for name, tc := range map[string]struct {
		output task.Output
		want   string
	}{
		"as its text": {task.Output{Text: `a & "b"`}, `{"role":"assistant","content":"a & \"b\""}`},
		"with its tool calls": {
			task.Output{Choices: json.RawMessage(`[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c1"}]}}]`)},
			`{"role":"assistant","content":null,"tool_calls":[{"id":"c1"}]}`,
		},
		"by its first choice, wherever that stands": {
			task.Output{Text: "a", Choices: json.RawMessage(`[{"index":1,"message":{"refusal":"no"}},{"index":0,"message":{"content":"a","tool_calls":null}}]`)},
			`{"role":"assistant","content":"a"}`,
		},
		"without what the model thought": {
			task.Output{Text: "a", Choices: json.RawMessage(`[{"index":0,"message":{"content":"a","reasoning_content":"hm","tool_calls":[]}}]`)},
			`{"role":"assistant","content":"a"}`,
		},
		"as a refusal": {
			task.Output{Choices: json.RawMessage(`[{"index":0,"message":{"refusal":"no"}}]`)},
			`{"role":"assistant","content":null,"refusal":"no"}`,
		},
		"as its text where the choices have another shape": {task.Output{Text: "a", Choices: json.RawMessage(`{"x":1}`)}, `{"role":"assistant","content":"a"}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := conversation.Answer(&tc.output)
			if err != nil || string(got) != tc.want {
				t.Errorf("got %s, %v\nwant %s", got, err, tc.want)
			}
		})
	}
}

func TestTheTokensOfAnAnswerAreThoseThatItsBackendCounted(t *testing.T) {
	said := json.RawMessage(`12345678`)
	one, two := &task.Output{Text: "a"}, &task.Output{Text: "a", Choices: json.RawMessage(`[{"index":0},{"index":1}]`)}
	for name, tc := range map[string]struct {
		output *task.Output
		usage  *task.Usage
		want   int
	}{
		"of it alone":                   {one, &task.Usage{CompletionTokens: 5}, 5},
		"and a guess for two of them":   {two, &task.Usage{CompletionTokens: 5}, 2},
		"and a guess where it was mute": {one, nil, 2},
		"and a guess where it said 0":   {one, &task.Usage{}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := conversation.Tokens(tc.output, tc.usage, said); got != tc.want {
				t.Errorf("%d tokens; want %d", got, tc.want)
			}
		})
	}
}
