package jsonbatch_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/backend/backendtest"
	"github.com/penstock/penstock/worker/backend/jsonbatch"
	"github.com/penstock/penstock/worker/backend/simulated"
)

func serve(t *testing.T, h http.HandlerFunc) *jsonbatch.Backend {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	b, err := jsonbatch.New(jsonbatch.Params{Name: "test", URL: srv.URL + "/predict", MaxAnswer: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func items(prompts ...string) []backend.Item {
	out := make([]backend.Item, len(prompts))
	for i, p := range prompts {
		out[i].Task = backendtest.Task(task.Completion, p, 1, false)
	}
	return out
}

func TestOutputsComeBackInOrder(t *testing.T) {
	b := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Model  string   `json:"model"`
			Inputs []string `json:"inputs"`
		}
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || req.Model == "" {
			http.Error(w, "bad", 400)
			return
		}
		out := make([]any, len(req.Inputs))
		for i, in := range req.Inputs {
			out[i] = strings.ToUpper(in)
		}
		out[0] = map[string]string{"label": out[0].(string)}
		_ = json.NewEncoder(w).Encode(map[string]any{"outputs": out})
	})
	out := b.Run(t.Context(), items("a", "b", "c"))
	if len(out) != 3 || out[1].Err != nil || out[1].Output.Text != "B" || out[2].Output.Text != "C" {
		t.Fatalf("outcomes %+v", out)
	}
	if string(out[0].Output.Value) != `{"label":"A"}` {
		t.Errorf("first value %s", out[0].Output.Value)
	}
}

func TestBadAnswersFailTheWholeBatch(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		body   string
		want   fault.Code
	}{
		"too few":   {200, `{"outputs":["a"]}`, fault.Unavailable},
		"not JSON":  {200, `oops`, fault.Unavailable},
		"refused":   {400, `{}`, fault.Rejected},
		"throttled": {429, `{}`, fault.Throttled},
		"down":      {503, `{}`, fault.Unavailable},
		"too large": {200, strings.Repeat(" ", 1<<17), fault.TooLarge},
	} {
		b := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tc.status)
			_, _ = io.WriteString(w, tc.body)
		})
		for _, o := range b.Run(t.Context(), items("a", "b")) {
			if fault.CodeOf(o.Err) != tc.want {
				t.Errorf("%s: %v, want %s", name, o.Err, tc.want)
			}
		}
	}
}

func TestAgainstTheSimulatedEngine(t *testing.T) {
	engine := simulated.New(simulated.Params{})
	srv := httptest.NewServer(engine.Handler())
	t.Cleanup(srv.Close)
	b, err := jsonbatch.New(jsonbatch.Params{Name: "test", URL: srv.URL + "/batch"})
	if err != nil {
		t.Fatal(err)
	}
	in := items("a", "b", "c")
	heard := ""
	in[1].Emit = func(p backend.Piece) { heard += p.Text }
	for i, o := range b.Run(t.Context(), in) {
		if want := simulated.Text(in[i].Task.Payload.Text, 1); o.Err != nil || o.Output.Text != want {
			t.Errorf("item %d: %+v, %v; want %q", i, o.Output, o.Err, want)
		}
	}
	if heard != simulated.Text("b", 1) {
		t.Errorf("heard %q", heard)
	}
	if x := engine.Executions(); x.Counts["task_a"] != 1 || x.Total != 3 {
		t.Errorf("log %+v", x)
	}
}

func TestOnlyAllowedParametersPass(t *testing.T) {
	var body string
	b := serve(t, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		body = string(raw)
		_, _ = io.WriteString(w, `{"outputs":["x"]}`)
	})
	in := items("a")
	in[0].Task.Params["priority"], in[0].Task.Params["seed"] = json.RawMessage("9"), json.RawMessage("4")
	b.Run(t.Context(), in)
	if strings.Contains(body, "priority") || !strings.Contains(body, `"seed":4`) {
		t.Errorf("body %s", body)
	}
}

func TestAnItemThatLeavesFreesNobodyElse(t *testing.T) {
	b := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"outputs":["x","y"]}`) })
	in := items("a", "b")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fault.New(fault.Cancelled, "gone"))
	in[0].Ctx = ctx
	out := b.Run(t.Context(), in)
	if fault.CodeOf(out[0].Err) != fault.Cancelled || out[1].Err != nil || out[1].Output.Text != "y" {
		t.Errorf("outcomes %+v", out)
	}
}
