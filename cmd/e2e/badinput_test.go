//go:build e2e

package e2e_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// badInput is one body that must be refused, and how.
type badInput struct {
	name   string
	path   string // default /v1/inference
	body   []byte
	header map[string]string
	status int
	code   fault.Code
	param  string // must occur in error.param, if set
}

// submitWith is a good body with one member replaced by raw JSON, put together
// by hand: what nests too deep cannot be encoded.
func submitWith(member, raw string) []byte {
	members := map[string]string{"model": `"sim-chat"`, "payload": `{"text":"hello"}`}
	members[member] = raw
	var out []string
	for name, value := range members {
		out = append(out, `"`+name+`":`+value)
	}
	return []byte("{" + strings.Join(out, ",") + "}")
}

func quoted(n int) string { return `"` + strings.Repeat("x", n) + `"` }

func gzipped(t *testing.T, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func badInputs(t *testing.T) []badInput {
	t.Helper()
	labels := func(n int) string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint("l", i)] = "v"
		}
		raw, _ := json.Marshal(m)
		return string(raw)
	}
	batch := func(n int) []byte {
		return []byte(`{"tasks":[` + strings.TrimSuffix(strings.Repeat(`{"model":"sim-chat","payload":{"text":"x"}},`, n), ",") + `]}`)
	}
	return []badInput{
		{name: "an empty body", body: nil, status: 400, code: fault.Malformed},
		{name: "text that is not JSON", body: []byte("hello"), status: 400, code: fault.Malformed},
		{name: "half an object", body: []byte(`{"model":"sim-chat",`), status: 400, code: fault.Malformed},
		{name: "an array", body: []byte(`[]`), status: 400, code: fault.Malformed},
		{name: "bytes that are not UTF-8", body: []byte("{\"model\":\"sim-chat\",\"payload\":{\"text\":\"\xff\xfe\"}}"), status: 400, code: fault.Malformed},
		{name: "no payload", body: []byte(`{"model":"sim-chat"}`), status: 400, code: fault.Malformed, param: "payload"},
		{name: "a payload with two contents", body: submitWith("payload", `{"text":"a","messages":[{"role":"user","content":"b"}]}`), status: 400, code: fault.Malformed, param: "payload"},
		{name: "a number for a model", body: submitWith("model", `7`), status: 400, code: fault.Malformed, param: "model"},
		{name: "a list for a text", body: submitWith("payload", `{"text":["a"]}`), status: 400, code: fault.Malformed, param: "payload.text"},
		{name: "an unknown class", body: submitWith("class", `"urgent"`), status: 400, code: fault.Malformed, param: "class"},
		{name: "a deadline in the past", body: submitWith("deadline", `"2020-01-01T00:00:00Z"`), status: 400, code: fault.Malformed, param: "deadline"},
		{name: "a timeout that is no duration", body: submitWith("timeout", `"soon"`), status: 400, code: fault.Malformed, param: "timeout"},
		{name: "a member twice", body: []byte(`{"model":"sim-chat","model":"sim-chat","payload":{"text":"x"}}`), status: 400, code: fault.Malformed, param: "model"},
		{name: "nesting 100,000 deep", body: submitWith("payload", strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)), status: 400, code: fault.Malformed},
		{name: "an unknown model", body: submitWith("model", `"no-such-model"`), status: 404, code: fault.NotFound, param: "model"},
		{name: "a body of one byte over the limit", body: append(submitWith("payload", `{"text":`+quoted(api.MaxBody-45)+`}`), bytes.Repeat([]byte(" "), 64)...), status: 413, code: fault.TooLarge},
		{name: "a model of one byte over the limit", body: submitWith("model", quoted(api.MaxName+1)), status: 413, code: fault.TooLarge, param: "model"},
		{name: "a session_id of one byte over the limit", body: submitWith("session_id", quoted(api.MaxName+1)), status: 413, code: fault.TooLarge, param: "session_id"},
		{name: "an ordering_key of one byte over the limit", body: submitWith("ordering_key", quoted(api.MaxName+1)), status: 413, code: fault.TooLarge, param: "ordering_key"},
		{name: "one label too many", body: submitWith("labels", labels(api.MaxLabels+1)), status: 413, code: fault.TooLarge, param: "labels"},
		{name: "a label of one byte over the limit", body: submitWith("labels", `{"l":`+quoted(api.MaxLabel+1)+`}`), status: 413, code: fault.TooLarge, param: "labels"},
		{name: "one input too many", body: submitWith("payload", `{"inputs":[`+strings.TrimSuffix(strings.Repeat(`"x",`, api.MaxInputs+1), ",")+`]}`), status: 413, code: fault.TooLarge, param: "payload.inputs"},
		{name: "an idempotency key of one byte over the limit", body: submitWith("model", `"sim-chat"`), header: map[string]string{"Idempotency-Key": strings.Repeat("k", api.MaxName+1)}, status: 413, code: fault.TooLarge},
		{name: "one task too many in a batch", path: "/v1/inference/batch", body: batch(api.MaxBatch + 1), status: 413, code: fault.TooLarge, param: "tasks"},
		{name: "an empty batch", path: "/v1/inference/batch", body: []byte(`{"tasks":[]}`), status: 400, code: fault.Malformed, param: "tasks"},
		{name: "a form", body: []byte("model=sim-chat"), header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, status: 415, code: fault.Unsupported},
		{name: "an encoding nobody speaks", body: submitWith("model", `"sim-chat"`), header: map[string]string{"Content-Encoding": "br"}, status: 415, code: fault.Unsupported},
		{name: "gzip that is none", body: []byte("hello"), header: map[string]string{"Content-Encoding": "gzip"}, status: 400, code: fault.Malformed},
		{name: "a gzip bomb", body: gzipped(t, make([]byte, 1<<30)), header: map[string]string{"Content-Encoding": "gzip"}, status: 413, code: fault.TooLarge},
		{name: "an unknown route", path: "/v1/nothing", body: []byte(`{}`), status: 404, code: fault.NotFound},
	}
}

func TestBadInput(t *testing.T) {
	s := start(t, params(t))
	producer := s.Producers[0]
	messages := map[string]string{}
	for _, tt := range badInputs(t) {
		t.Run(tt.name, func(t *testing.T) {
			status, env := postBad(t, producer.URL, tt)
			switch {
			case status != tt.status:
				t.Fatalf("status %d (%s), want %d", status, env.Message, tt.status)
			case env.Error == nil || env.Code != tt.status || env.Message == "" || env.RequestID == "":
				t.Fatalf("incomplete error body: %+v", env)
			case env.Error.Type != tt.code || !strings.Contains(env.Error.Param, tt.param):
				t.Errorf("error %q at %q, want %q at %q", env.Error.Type, env.Error.Param, tt.code, tt.param)
			}
			said := fmt.Sprint(env.Code, env.Error.Param, env.Message)
			if other, twice := messages[said]; twice {
				t.Errorf("answers like %q: %s", other, said)
			}
			messages[said] = tt.name
		})
	}
	t.Run("leaves the process unharmed", func(t *testing.T) {
		if !producer.Alive() {
			t.Fatal("the producer died; see", producer.Log)
		}
		rss, err := system.Resident(producer.PID())
		if err != nil {
			t.Fatal(err)
		}
		if rss > 512<<20 {
			t.Errorf("the producer holds %d MiB", rss>>20)
		}
		submitAndSucceed(t, s, "still there?")
	})
}

func postBad(t *testing.T, base string, in badInput) (int, api.Envelope) {
	t.Helper()
	path := in.path
	if path == "" {
		path = "/v1/inference"
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, bytes.NewReader(in.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range in.header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal("no answer, not even an error: ", err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var env api.Envelope
	if err := json.Unmarshal(raw, &env); err != nil {
		t.Fatalf("status %d with a body that is no envelope: %.200s", res.StatusCode, raw)
	}
	return res.StatusCode, env
}
