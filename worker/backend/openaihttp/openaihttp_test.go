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
	"unicode/utf8"

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

// Streams as engines were recorded to send them.
func TestStreamsOfRealEngines(t *testing.T) {
	for name, tc := range map[string]struct {
		body string
		kind task.Kind
		code fault.Code // empty: success with the text "ok"
	}{
		"llama.cpp opens with null": {
			"data: null\n\ndata: {\"choices\":[{\"text\":\"ok\",\"index\":0,\"finish_reason\":null}]}\n\n" +
				"data: {\"choices\":[{\"text\":\"\",\"index\":0,\"finish_reason\":\"length\"}],\"usage\":{\"completion_tokens\":1,\"prompt_tokens\":1,\"total_tokens\":2},\"timings\":{}}\n\ndata: [DONE]\n\n",
			task.Completion, "",
		},
		"older llama.cpp tells of a failure in a field of its own": {
			"error: {\"code\":503,\"message\":\"slot unavailable\",\"type\":\"unavailable_error\"}\n\n", task.Completion, fault.Unavailable,
		},
		"an error field that is not JSON": {"error: boom\n\n", task.Completion, fault.Unavailable},
		"vLLM counts usage in every event": {
			"data: {\"choices\":[{\"delta\":{\"content\":\"ok\"},\"index\":0,\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}\n\n" +
				"data: {\"choices\":[{\"delta\":{},\"index\":0,\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}\n\ndata: [DONE]\n\n",
			task.Chat, "",
		},
		"vLLM fails in the middle": {
			"data: {\"choices\":[{\"delta\":{\"content\":\"o\"},\"index\":0}]}\n\ndata: {\"error\":{\"message\":\"EngineCore died\",\"type\":\"InternalServerError\",\"code\":500}}\n\ndata: [DONE]\n\n",
			task.Chat, fault.Unavailable,
		},
		"an input that is too long, told in the stream": {
			"data: {\"error\":{\"message\":\"maximum context length\",\"code\":400}}\n\n", task.Chat, fault.Rejected,
		},
		"text that is not UTF-8": {
			"data: {\"choices\":[{\"text\":\"ok\xff\",\"index\":0,\"finish_reason\":\"stop\"}]}\n\n", task.Completion, "\uFFFD",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, text := streamed(t, serve(t, sse(tc.body), openaihttp.Params{}), tc.kind)
			switch {
			case tc.code == "" || tc.code == "\uFFFD":
				if o.Err != nil || o.Output.Text != "ok"+string(tc.code) || text != o.Output.Text {
					t.Errorf("outcome %+v, %v, streamed %q", o.Output, o.Err, text)
				}
			case fault.CodeOf(o.Err) != tc.code:
				t.Errorf("outcome %v, want %s", o.Err, tc.code)
			}
		})
	}
}

// A network may cut anywhere, in the middle of a rune too.
func TestStreamInPiecesOfOneByte(t *testing.T) {
	b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		for i := range len(recorded) {
			_, _ = io.WriteString(w, recorded[i:i+1])
			_ = rc.Flush()
		}
	}), openaihttp.Params{})
	if o, text := streamed(t, b, task.Chat); o.Err != nil || text != "Grüß Gott" || o.Usage == nil || o.Usage.TotalTokens != 5 {
		t.Errorf("outcome %+v, %v, streamed %q", o.Output, o.Err, text)
	}
}

func TestEveryChoiceMustEnd(t *testing.T) {
	event := func(i int, text, finish string) string {
		return fmt.Sprintf("data: {\"choices\":[{\"index\":%d,\"delta\":{\"content\":%q},\"finish_reason\":%s}]}\n\n", i, text, finish)
	}
	run := func(body string) backend.Outcome {
		item := backend.Item{Task: backendtest.Task(task.Chat, "x", 5, true), Emit: func(backend.Piece) {}}
		item.Task.Params["n"] = json.RawMessage("2")
		return serve(t, sse(body), openaihttp.Params{}).Run(t.Context(), []backend.Item{item})[0]
	}
	whole := event(0, "a", `"stop"`) + event(1, "b", `"length"`)
	if o := run(whole); o.Err != nil || o.Output.Text != "a" || !strings.Contains(string(o.Output.Choices), `"content":"b"`) {
		t.Errorf("outcome %+v, %v", o.Output, o.Err)
	}
	for name, body := range map[string]string{
		"the second never came":  event(0, "a", `"stop"`),
		"the second did not end": event(0, "a", `"stop"`) + event(1, "b", "null"),
		"there is a third":       event(2, "c", `"stop"`) + whole,
	} {
		if o := run(body); fault.CodeOf(o.Err) != fault.Unavailable {
			t.Errorf("%s: %+v, %v; want unavailable", name, o.Output, o.Err)
		}
	}
}

func TestReasoningIsKept(t *testing.T) {
	b := serve(t, sse(
		`data: {"choices":[{"index":0,"delta":{"reasoning_content":"let me "}}]}`+"\n\n"+
			`data: {"choices":[{"index":0,"delta":{"reasoning_content":"see","content":"42"},"finish_reason":"stop"}]}`+"\n\n"), openaihttp.Params{})
	o, text := streamed(t, b, task.Chat)
	if o.Err != nil || text != "42" || !strings.Contains(string(o.Output.Choices), `"reasoning_content":"let me see"`) {
		t.Errorf("outcome %+v, %v", o.Output, o.Err)
	}
}

func TestMediaIsNotFetchedFromURLs(t *testing.T) {
	called := false
	b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		called = true
		_, _ = io.WriteString(w, `{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}`)
	}), openaihttp.Params{})
	for messages, passes := range map[string]bool{
		`[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}]}]`:          false,
		`[{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}]`:               false,
		`[{"role":"user","content":[{"type":"audio_url","audio_url":"HTTPS://inner/a.wav"}]}]`:                      false,
		`[{"role":"user","content":[{"type":"image_url","image\u005furl":{"url":"http://inner/"}}]}]`:               false,
		`[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]`:       true,
		`[{"role":"user","content":"what does image_url: http://example.com/ mean? \u00e4"}]`:                       true,
		`[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png,A","detail":"high"}}]}]`: true,
	} {
		called = false
		tk := backendtest.Task(task.Chat, "x", 5, false)
		tk.Payload.Messages = json.RawMessage(messages)
		o := b.Run(t.Context(), []backend.Item{{Task: tk}})[0]
		if passes != (o.Err == nil) || passes != called || !passes && fault.CodeOf(o.Err) != fault.Rejected {
			t.Errorf("%s: %v, engine called: %v", messages, o.Err, called)
		}
	}
}

func TestManyInputsAreSomeCalls(t *testing.T) {
	var sizes []int
	engine := simulated.New(simulated.Params{}).Handler()
	b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var body struct{ Input []string }
		_ = json.Unmarshal(raw, &body)
		sizes = append(sizes, len(body.Input))
		r.Body = io.NopCloser(bytes.NewReader(raw))
		engine.ServeHTTP(w, r)
	}), openaihttp.Params{MaxBatch: 8})
	tk := backendtest.Task(task.Embedding, "", 0, false)
	tk.Payload = task.Payload{}
	for i := range 20 {
		tk.Payload.Inputs = append(tk.Payload.Inputs, json.RawMessage(fmt.Sprintf(`"text %d"`, i)))
	}
	if _, n := b.Join(tk); n != 1 {
		t.Errorf("20 inputs join %d others", n-1)
	}
	o := b.Run(t.Context(), []backend.Item{{Task: tk}})[0]
	var vectors [][]float32
	if o.Err != nil || json.Unmarshal(o.Output.Embeddings, &vectors) != nil || len(vectors) != 20 {
		t.Fatalf("%d vectors, %v", len(vectors), o.Err)
	}
	if vectors[19][0] != simulated.Vector("text 19")[0] || fmt.Sprint(sizes) != "[8 8 4]" {
		t.Errorf("calls of %v", sizes)
	}
	tk.Payload.Inputs = tk.Payload.Inputs[:3]
	if _, n := b.Join(tk); n != 2 {
		t.Errorf("3 inputs join %d of 8, want 2 tasks of at most 4", n)
	}
}

// canned answers every request with one stream, without a network.
type canned []byte

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {"text/event-stream"}},
		Body: io.NopCloser(bytes.NewReader(c)),
	}, nil
}

func FuzzStream(f *testing.F) {
	f.Add([]byte(recorded))
	f.Add([]byte("data: {\"choices\":[{\"index\":127}]}\n\ndata: [DONE]\n\n"))
	f.Add([]byte("data:\n\n\r\n:\nerror: {\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := openaihttp.New(openaihttp.Params{Name: "fuzz", URL: "http://engine", MaxAnswer: 1 << 16, Transport: canned(raw)})
		if err != nil {
			t.Fatal(err)
		}
		o, text := streamed(t, b, task.Chat)
		switch {
		case o.Err == nil && (o.Output.FinishReason == "" || o.Output.Text != text || !utf8.ValidString(text)):
			t.Errorf("%q: a success of %+v, streamed %q", raw, o.Output, text)
		case o.Err != nil && o.Output != nil:
			t.Errorf("%q: %v and an output", raw, o.Err)
		}
	})
}

func TestAnEngineThatIsAskedForStreamsOnly(t *testing.T) {
	asked := make(chan string, 2) // one body of each call
	b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- string(body)
		sse(recorded)(w, r)
	}), openaihttp.Params{Streamed: true})
	plain := backendtest.Task(task.Chat, "x", 5, false)
	o := b.Run(t.Context(), []backend.Item{{Task: plain}})[0]
	if o.Err != nil || o.Output.Text != "Grüß Gott" || o.Usage == nil || o.Usage.TotalTokens != 5 {
		t.Errorf("a plain chat comes as %+v, %v", o, o.Err)
	}
	if body := <-asked; !strings.Contains(body, `"stream":true`) {
		t.Errorf("it was asked for by %s", body)
	}
	if _, most := b.Join(backendtest.Task(task.Completion, "x", 5, false)); most != 1 {
		t.Errorf("a completion shares its call with %d others", most-1)
	}
	if _, most := b.Join(backendtest.Task(task.Embedding, "x", 5, false)); most == 1 {
		t.Error("an embedding shares no call, although none is streamed")
	}
}

func TestWhatAnEngineDoesNotDoIsNotAskedAgain(t *testing.T) {
	b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotImplemented)
	}), openaihttp.Params{})
	o := b.Run(t.Context(), []backend.Item{{Task: backendtest.Task(task.Embedding, "x", 5, false)}})[0]
	if fault.CodeOf(o.Err) != fault.Rejected {
		t.Errorf("outcome %v; want rejected", o.Err)
	}
}
