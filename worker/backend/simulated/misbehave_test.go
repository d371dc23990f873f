package simulated_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/backend/backendtest"
	"github.com/penstock/penstock/worker/backend/openaihttp"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// TestMisbehaviour shows what our adapter makes of each way to misbehave.
func TestMisbehaviour(t *testing.T) {
	for action, want := range map[simulated.Action]fault.Code{
		simulated.ActionCut:     fault.Unavailable,
		simulated.ActionGarbage: fault.Unavailable,
		simulated.ActionHalf:    fault.Unavailable,
		simulated.ActionDrop:    fault.Unavailable,
		simulated.ActionDrip:    fault.Timeout,
		simulated.ActionHang:    fault.Timeout,
		simulated.ActionFlood:   fault.TooLarge,
		simulated.ActionUTF8:    "",
	} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			e := simulated.New(simulated.Params{})
			if _, err := e.Faults().Set(simulated.Fault{Action: action}); err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewServer(e.Handler())
			defer srv.Close()
			b, err := openaihttp.New(openaihttp.Params{Name: "b", URL: srv.URL, FirstByte: 300 * time.Millisecond, MaxAnswer: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			outs := b.Run(t.Context(), []backend.Item{
				{Task: backendtest.Task(task.Completion, "one", 4, false)}, {Task: backendtest.Task(task.Completion, "two", 4, false)},
			})
			for _, o := range outs {
				switch {
				case want != "" && fault.CodeOf(o.Err) != want:
					t.Errorf("outcome %v, want %s", o.Err, want)
				case want == "" && (o.Err != nil || !strings.HasPrefix(o.Output.Text, "\uFFFD")):
					t.Errorf("outcome %+v, %v, want repaired text", o.Output, o.Err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // a hang ends with its caller
			defer cancel()
			if o := e.Run(ctx, []backend.Item{{Task: backendtest.Task(task.Completion, "three", 4, false)}})[0]; o.Err == nil {
				t.Error("in process it is no failure")
			}
		})
	}
}

func TestOnlyTheMatchingPromptIsGarbled(t *testing.T) {
	e := simulated.New(simulated.Params{})
	if _, err := e.Faults().Set(simulated.Fault{Action: simulated.ActionUTF8, Match: "bad"}); err != nil {
		t.Fatal(err)
	}
	choices := ask(t, e, "/v1/completions", `{"model":"sim-chat","prompt":["good","bad"],"max_tokens":2}`)["choices"].([]any)
	for i, c := range choices {
		text := c.(map[string]any)["text"].(string)
		if garbled := strings.HasPrefix(text, "\uFFFD"); garbled != (i == 1) {
			t.Errorf("choice %d is %q", i, text)
		}
	}
}
