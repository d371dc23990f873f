package simulated_test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/backend/backendtest"
	"github.com/penstock/penstock/worker/backend/simulated"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(_ *testing.T, e *simulated.Engine) backend.Backend { return e })
}

func TestCost(t *testing.T) {
	batch := func(n int) []backend.Item {
		items := make([]backend.Item, n)
		for i := range items {
			items[i].Task = backendtest.Task(task.Completion, "x", 1, false)
		}
		return items
	}
	t.Run("a batch costs its base and each item", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := simulated.New(simulated.DefaultParams())
			began := time.Now()
			e.Run(t.Context(), batch(10))
			if took := time.Since(began); took != 30*time.Millisecond {
				t.Errorf("10 items took %s, want 30ms", took)
			}
		})
	})
	t.Run("batches queue for the device", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := simulated.New(simulated.DefaultParams())
			began := time.Now()
			done := make(chan struct{}, 3)
			for range 3 {
				go func() { e.Run(t.Context(), batch(1)); done <- struct{}{} }()
			}
			for range 3 {
				<-done
			}
			if took := time.Since(began); took != 63*time.Millisecond {
				t.Errorf("3 batches of one took %s, want 63ms", took)
			}
		})
	})
	t.Run("a stream takes its time per token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := simulated.New(simulated.DefaultParams())
			began := time.Now()
			item := backend.Item{Task: backendtest.Task(task.Chat, "x", 16, true), Emit: func(backend.Piece) {}}
			o := e.Run(t.Context(), []backend.Item{item})[0]
			if took := time.Since(began); took != 320*time.Millisecond || o.FirstToken != 20*time.Millisecond {
				t.Errorf("16 tokens took %s, the first %s; want 320ms and 20ms", took, o.FirstToken)
			}
		})
	})
}

func TestStampedTokensTellWhenTheyWereBorn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := simulated.DefaultParams()
		p.Stamp = true
		began, streamed := time.Now(), ""
		item := backend.Item{Task: backendtest.Task(task.Chat, "x", 4, true), Emit: func(p backend.Piece) { streamed += p.Text }}
		o := simulated.New(p).Run(t.Context(), []backend.Item{item})[0]
		if o.Err != nil || o.Output.Text != streamed {
			t.Fatalf("the output is %+v, the stream %q", o, streamed)
		}
		born, err := simulated.Stamps(nil, streamed)
		if err != nil || len(born) != 4 {
			t.Fatalf("%q is %v, %v", streamed, born, err)
		}
		for i, at := range born {
			if age := at.Sub(began); age != time.Duration(i+1)*20*time.Millisecond {
				t.Errorf("token %d was born after %s", i, age)
			}
		}
		if _, err := simulated.Stamps(nil, "a word"); err == nil {
			t.Error("a word passes for a time")
		}
	})
}

func TestFaultSwitchesOverHTTP(t *testing.T) {
	e := simulated.New(simulated.Params{})
	srv := httptest.NewServer(e.Handler())
	defer srv.Close()
	post := func(body string) int {
		resp, err := srv.Client().Post(srv.URL+"/sim/faults", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for body, want := range map[string]int{
		`{"match":"poison","status":503,"retry_after":"2s","count":2}`: 201,
		`{"action":"slow","delay":"10ms"}`:                             201,
		`{"status":200}`:                                               400,
		`{"action":"explode"}`:                                         400,
		`{"mach":"typo"}`:                                              400,
		`{"delay":"soon"}`:                                             400,
	} {
		if got := post(body); got != want {
			t.Errorf("%s: status %d, want %d", body, got, want)
		}
	}
	if n := len(e.Faults().List()); n != 2 {
		t.Errorf("%d faults are on, want 2", n)
	}
	if n := e.Faults().Clear(0); n != 2 {
		t.Errorf("cleared %d, want 2", n)
	}
}

func TestMoreThanABatchIsSomeBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := simulated.New(simulated.DefaultParams())
		tk := backendtest.Task(task.Embedding, "", 0, false)
		tk.Payload = task.Payload{}
		for i := range 70 {
			tk.Payload.Inputs = append(tk.Payload.Inputs, json.RawMessage(fmt.Sprintf("%q", fmt.Sprint(i))))
		}
		began := time.Now()
		o := e.Run(t.Context(), []backend.Item{{Task: tk}})[0]
		if took := time.Since(began); took != 130*time.Millisecond {
			t.Errorf("70 inputs took %s, want 3 × 20 ms + 70 × 1 ms", took)
		}
		var vectors [][]float32
		if err := json.Unmarshal(o.Output.Embeddings, &vectors); err != nil || len(vectors) != 70 {
			t.Fatalf("%d vectors, %v", len(vectors), err)
		}
		var norm float64
		for _, x := range vectors[7] {
			norm += float64(x) * float64(x)
		}
		if len(vectors[7]) != 64 || math.Abs(norm-1) > 1e-4 {
			t.Errorf("%d dimensions of length %f", len(vectors[7]), norm)
		}
	})
}

func TestFaultsInABatch(t *testing.T) {
	items := func() []backend.Item {
		return []backend.Item{
			{Task: backendtest.Task(task.Completion, "well", 1, false)},
			{Task: backendtest.Task(task.Completion, "poison", 1, false)},
		}
	}
	t.Run("one poison fails the call", func(t *testing.T) {
		e := simulated.New(simulated.Params{})
		if _, err := e.Faults().Set(simulated.Fault{Match: "poison", Status: 500}); err != nil {
			t.Fatal(err)
		}
		for _, o := range e.Run(t.Context(), items()) {
			if fault.CodeOf(o.Err) != fault.Unavailable {
				t.Errorf("outcome %v", o.Err)
			}
		}
	})
	t.Run("a slow call ends well, later", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := simulated.New(simulated.DefaultParams())
			if _, err := e.Faults().Set(simulated.Fault{Action: simulated.ActionSlow, Delay: time.Second, Count: 1}); err != nil {
				t.Fatal(err)
			}
			for _, want := range []time.Duration{1022 * time.Millisecond, 22 * time.Millisecond} {
				began := time.Now()
				for _, o := range e.Run(t.Context(), items()) {
					if o.Err != nil || o.Output == nil {
						t.Errorf("outcome %+v, %v", o.Output, o.Err)
					}
				}
				if took := time.Since(began); took != want {
					t.Errorf("took %s, want %s", took, want)
				}
			}
		})
	})
}

// ask posts a body to the engine and returns the answer.
func ask(t *testing.T, e *simulated.Engine, path, body string, header ...string) map[string]any {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	e.Handler().ServeHTTP(rec, req)
	var out map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil {
		t.Fatalf("%s: %v in %q", path, err, rec.Body)
	}
	return out
}

func TestHTTP(t *testing.T) {
	e := simulated.New(simulated.Params{})
	t.Run("each prompt has its choices, in order", func(t *testing.T) {
		choices := ask(t, e, "/v1/completions", `{"model":"sim-chat","prompt":["a","b"],"n":2,"max_tokens":3}`)["choices"].([]any)
		if len(choices) != 4 {
			t.Fatalf("%d choices, want 4", len(choices))
		}
		texts := map[any]bool{}
		for i, c := range choices {
			c := c.(map[string]any)
			if c["index"] != float64(i) {
				t.Errorf("choice %d has index %v", i, c["index"])
			}
			texts[c["text"]] = true
		}
		if len(texts) != 4 || !texts[simulated.Text("a", 3)] || !texts[simulated.Text("b", 3)] {
			t.Errorf("texts %v", texts)
		}
	})
	t.Run("embeddings in base64 are the same vectors", func(t *testing.T) {
		data := ask(t, e, "/v1/embeddings", `{"model":"sim-embed","input":"a","encoding_format":"base64"}`)["data"].([]any)
		raw, err := base64.StdEncoding.DecodeString(data[0].(map[string]any)["embedding"].(string))
		if err != nil || len(raw) != 4*64 {
			t.Fatalf("%d bytes, %v", len(raw), err)
		}
		if got := math.Float32frombits(binary.LittleEndian.Uint32(raw)); got != simulated.Vector("a")[0] {
			t.Errorf("first number %f, want %f", got, simulated.Vector("a")[0])
		}
	})
	t.Run("JSON batches", func(t *testing.T) {
		outputs := ask(t, e, "/batch", `{"model":"sim-chat","inputs":["a","b"],"params":{"max_tokens":2}}`)["outputs"].([]any)
		if len(outputs) != 2 || outputs[1] != simulated.Text("b", 2) {
			t.Errorf("outputs %v", outputs)
		}
	})
	t.Run("a call of one task with many inputs is one execution", func(t *testing.T) {
		e := simulated.New(simulated.Params{})
		ask(t, e, "/v1/embeddings", `{"model":"sim-embed","input":["a","b","c"]}`, backend.HeaderTask, "task_1", backend.HeaderFence, "77")
		got := e.Executions()
		if got.Total != 1 || got.Counts["task_1"] != 1 || got.Recent[0].Fence != "77" {
			t.Errorf("log %+v", got)
		}
	})
	t.Run("what is no request is refused", func(t *testing.T) {
		for _, body := range []string{"", "{", `{"model":"sim-chat"}`, `{"prompt":[]}`} {
			if got := ask(t, e, "/v1/completions", body); got["error"] == nil {
				t.Errorf("%q: %v", body, got)
			}
		}
	})
}
