package openaihttp_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/backend/backendtest"
	"github.com/penstock/penstock/worker/backend/openaihttp"
	"github.com/penstock/penstock/worker/backend/simulated"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

func serve(t *testing.T, h http.Handler, p openaihttp.Params) *openaihttp.Backend {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	p.Name, p.URL = "test", srv.URL
	b, err := openaihttp.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(t *testing.T, e *simulated.Engine) backend.Backend {
		return serve(t, e.Handler(), openaihttp.Params{})
	})
}

func streamed(t *testing.T, b backend.Backend, kind task.Kind) (backend.Outcome, string) {
	t.Helper()
	var text strings.Builder
	item := backend.Item{Task: backendtest.Task(kind, "x", 5, true), Emit: func(p backend.Piece) { text.WriteString(p.Text) }}
	return b.Run(t.Context(), []backend.Item{item})[0], text.String()
}

// recorded is a stream as engines send it: a role first, text, a finish_reason,
// usage, done.
const recorded = ": ping\n\n" +
	`data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}]}` + "\n\n" +
	`data: {"choices":[{"index":0,"delta":{"content":"Grüß "},"finish_reason":null}]}` + "\r\n\r\n" +
	`data: {"choices":[{"index":0,"delta":{"content":"Gott"},"finish_reason":null}]}` + "\n\n" +
	`data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n" +
	`data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}` + "\n\n" +
	"data: [DONE]\n\n"

func sse(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, body)
	}
}

func TestStreamCutAtEveryByteIsNeverASilentSuccess(t *testing.T) {
	finished := strings.Index(recorded, `"stop"}]}`) + len(`"stop"}]}`) + len("\n\n")
	for cut := range len(recorded) + 1 {
		b := serve(t, sse(recorded[:cut]), openaihttp.Params{})
		o, text := streamed(t, b, task.Chat)
		switch {
		case cut >= finished && (o.Err != nil || o.Output.Text != "Grüß Gott" || text != "Grüß Gott"):
			t.Fatalf("cut at %d, after the finish_reason: %+v, %v", cut, o.Output, o.Err)
		case cut < finished && (o.Err == nil || fault.CodeOf(o.Err) != fault.Unavailable):
			t.Fatalf("cut at %d, before the finish_reason: %+v, %v; want unavailable", cut, o.Output, o.Err)
		}
	}
}

func TestAnErrorAsTheFirstEventIsSeen(t *testing.T) {
	b := serve(t, sse(`data: {"error":{"message":"overloaded: the prompt was secret","code":503}}`+"\n\ndata: [DONE]\n\n"), openaihttp.Params{})
	o, _ := streamed(t, b, task.Chat)
	if fault.CodeOf(o.Err) != fault.Unavailable || strings.Contains(o.Err.Error(), "secret") {
		t.Errorf("outcome %v; want unavailable without the engine's words", o.Err)
	}
	b = serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"error":{"message":"slow down","code":"429"}}`)
	}), openaihttp.Params{})
	o = b.Run(t.Context(), []backend.Item{{Task: backendtest.Task(task.Chat, "x", 5, false)}})[0]
	if fault.CodeOf(o.Err) != fault.Throttled {
		t.Errorf("outcome %v; want throttled", o.Err)
	}
}

func TestTimeouts(t *testing.T) {
	hang := func(first string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, first)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}
	p := openaihttp.Params{FirstByte: 50 * time.Millisecond, Idle: 50 * time.Millisecond}
	for name, h := range map[string]http.HandlerFunc{
		"never a first event":    hang(""),
		"silence after a token":  hang(`data: {"choices":[{"index":0,"delta":{"content":"a"}}]}` + "\n\n"),
		"half an event, forever": hang(`data: {"choices":[`),
	} {
		o, _ := streamed(t, serve(t, h, p), task.Chat)
		if fault.CodeOf(o.Err) != fault.Timeout {
			t.Errorf("%s: %v, want timeout", name, o.Err)
		}
	}
	o := serve(t, hang(""), p).Run(t.Context(), []backend.Item{{Task: backendtest.Task(task.Chat, "x", 5, false)}})[0]
	if fault.CodeOf(o.Err) != fault.Timeout {
		t.Errorf("a plain call: %v, want timeout", o.Err)
	}
}

func TestAnswersThatDoNotFitFailTheWholeBatch(t *testing.T) {
	choice := func(i int) string { return fmt.Sprintf(`{"index":%d,"text":"t%d","finish_reason":"stop"}`, i, i) }
	for name, body := range map[string]string{
		"one too few":        `{"choices":[` + choice(0) + `]}`,
		"one too many":       `{"choices":[` + choice(0) + `,` + choice(1) + `,` + choice(2) + `]}`,
		"an index twice":     `{"choices":[` + choice(1) + `,` + choice(1) + `]}`,
		"an index too large": `{"choices":[` + choice(0) + `,` + choice(7) + `]}`,
		"a negative index":   `{"choices":[` + choice(0) + `,` + choice(-1) + `]}`,
		"no finish_reason":   `{"choices":[` + choice(0) + `,{"index":1,"text":"half"}]}`,
		"not JSON":           `{"choices":[`,
		"an empty body":      ``,
		"another shape":      `{"choices":{"a":1}}`,
	} {
		b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }), openaihttp.Params{})
		out := b.Run(t.Context(), []backend.Item{
			{Task: backendtest.Task(task.Completion, "a", 1, false)}, {Task: backendtest.Task(task.Completion, "b", 1, false)},
		})
		for _, o := range out {
			if fault.CodeOf(o.Err) != fault.Unavailable {
				t.Errorf("%s: %+v, %v; want unavailable", name, o.Output, o.Err)
			}
		}
	}
}

func TestChoicesInAnyOrder(t *testing.T) {
	b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":null,"choices":[{"index":1,"text":"B","finish_reason":"stop"},{"index":0,"text":"A","finish_reason":"length"}],`+
			`"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}`)
	}), openaihttp.Params{})
	out := b.Run(t.Context(), []backend.Item{
		{Task: backendtest.Task(task.Completion, "a", 1, false)}, {Task: backendtest.Task(task.Completion, "b", 1, false)},
	})
	if out[0].Err != nil || out[0].Output.Text != "A" || out[1].Output.Text != "B" {
		t.Fatalf("outcomes %+v", out)
	}
	if out[0].Usage.TotalTokens+out[1].Usage.TotalTokens != 8 {
		t.Errorf("the shares of usage do not add up: %+v %+v", out[0].Usage, out[1].Usage)
	}
}

func TestBoundsAndRoad(t *testing.T) {
	t.Run("a huge answer is refused", func(t *testing.T) {
		b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte(" "), 4096))
		}), openaihttp.Params{MaxAnswer: 1024})
		o := b.Run(t.Context(), []backend.Item{{Task: backendtest.Task(task.Chat, "x", 5, false)}})[0]
		if fault.CodeOf(o.Err) != fault.TooLarge {
			t.Errorf("outcome %v, want too_large", o.Err)
		}
	})
	t.Run("so is an endless stream", func(t *testing.T) {
		b := serve(t, sse("data: "+strings.Repeat("x", 4096)), openaihttp.Params{MaxAnswer: 1024})
		if o, _ := streamed(t, b, task.Chat); fault.CodeOf(o.Err) != fault.TooLarge {
			t.Errorf("outcome %v, want too_large", o.Err)
		}
	})
	t.Run("nobody at the address is the system's fault", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		url := "http://" + l.Addr().String()
		_ = l.Close()
		b, err := openaihttp.New(openaihttp.Params{Name: "gone", URL: url})
		if err != nil {
			t.Fatal(err)
		}
		o := b.Run(t.Context(), []backend.Item{{Task: backendtest.Task(task.Chat, "x", 5, false)}})[0]
		if fault.CodeOf(o.Err) != fault.Unavailable || fault.ClassOf(o.Err) != fault.ClassSystem {
			t.Errorf("outcome %v (%s), want unavailable (system)", o.Err, fault.ClassOf(o.Err))
		}
	})
	t.Run("a redirect is not followed with our credentials", func(t *testing.T) {
		b := serve(t, http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound), openaihttp.Params{APIKey: "k"})
		o := b.Run(t.Context(), []backend.Item{{Task: backendtest.Task(task.Chat, "x", 5, false)}})[0]
		if fault.CodeOf(o.Err) != fault.Unavailable {
			t.Errorf("outcome %v, want unavailable", o.Err)
		}
	})
	t.Run("an address that is none is told at once", func(t *testing.T) {
		if _, err := openaihttp.New(openaihttp.Params{Name: "x", URL: "ftp://host"}); err == nil {
			t.Error("ftp was taken")
		}
	})
}

func TestOnlyAllowedParametersPass(t *testing.T) {
	var got map[string]json.RawMessage
	b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&got)
		_, _ = io.WriteString(w, `{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}`)
	}), openaihttp.Params{})
	tk := backendtest.Task(task.Chat, "x", 5, false)
	tk.Params["temperature"], tk.Params["priority"], tk.Params["cache_salt"] = json.RawMessage(`0.5`), json.RawMessage(`1`), json.RawMessage(`"s"`)
	b.Run(t.Context(), []backend.Item{{Task: tk}})
	if string(got["temperature"]) != "0.5" || string(got["max_tokens"]) != "5" {
		t.Errorf("body %v lacks what the caller may set", got)
	}
	if got["priority"] != nil || got["cache_salt"] != nil {
		t.Errorf("body %v has what is not for strangers", got)
	}
}

func TestToolCallsSurviveAStream(t *testing.T) {
	b := serve(t, sse(
		`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\""}}]}}]}`+"\n\n"+
			`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}`+"\n\n"+
			`data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`+"\n\ndata: [DONE]\n\n"), openaihttp.Params{})
	o, _ := streamed(t, b, task.Chat)
	if o.Err != nil || !strings.Contains(string(o.Output.Choices), `"arguments":"{\"a\":1}"`) {
		t.Errorf("outcome %+v, %v", o.Output, o.Err)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte(recorded))
	f.Add([]byte("data: {\"choices\":[{\"index\":127}]}\n\ndata: [DONE]\n\n"))
	f.Add([]byte("data:\n\n\r\n:\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := serve(t, sse(string(raw)), openaihttp.Params{MaxAnswer: 1 << 16, Idle: time.Second})
		o, _ := streamed(t, b, task.Chat)
		if o.Err == nil && o.Output.FinishReason == "" {
			t.Errorf("%q: a success without finish_reason", raw)
		}
	})
}
