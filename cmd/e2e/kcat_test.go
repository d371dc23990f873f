//go:build e2e

package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// stranger is a record as a tool sees it that knows nothing of Penstock.
type stranger struct {
	Key     string
	Value   []byte
	Headers map[string]string
}

// TestStrangersCanReadTheTopics reads the three topics with kcat where it is
// installed, else with a bare client.
func TestStrangersCanReadTheTopics(t *testing.T) {
	p := params(t)
	p.Env = []string{"PENSTOCK_RETRY_BASE=50ms", "PENSTOCK_RETRY_CAP=200ms"}
	s := start(t, p)
	good := submitAndSucceed(t, s, "read me with kcat").TaskID
	setFault(t, s, simulated.Fault{Match: "poisoned", Status: http.StatusInternalServerError})
	bad := killOne(t, s, "poisoned for strangers")

	for _, tt := range []struct {
		topic, schema, typ string
		id                 task.ID
	}{
		{topic.Tasks("default", task.Standard), "task", wire.TypeTask, good},
		{topic.Results, "terminal", wire.TypeTerminal, good},
		{topic.DeadLetters, "task", wire.TypeTask, bad},
	} {
		t.Run(tt.topic, func(t *testing.T) {
			check := shippedSchema(t, tt.schema)
			found := false
			for _, r := range readAsStranger(t, p.Kafka[0], tt.topic) {
				if !json.Valid(r.Value) {
					t.Fatalf("record %s is no plain JSON: %.100s", r.Key, r.Value)
				}
				if err := check(r.Value); err != nil {
					t.Errorf("record %s is not valid against %s.schema.json: %v", r.Key, tt.schema, err)
				}
				for _, name := range []string{"ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type"} {
					if r.Headers[name] == "" {
						t.Errorf("record %s lacks header %s: %v", r.Key, name, r.Headers)
					}
				}
				if r.Headers["ce_type"] != tt.typ {
					t.Errorf("record %s: ce_type %q, want %q", r.Key, r.Headers["ce_type"], tt.typ)
				}
				found = found || r.Key == string(tt.id)
			}
			if !found {
				t.Errorf("no record of task %s", tt.id)
			}
		})
	}
}

func readAsStranger(t *testing.T, broker, name string) []stranger {
	t.Helper()
	path, err := exec.LookPath("kcat")
	if err != nil {
		t.Log("kcat is not installed: reading with a bare client")
		return readBare(t, name)
	}
	out, err := exec.CommandContext(t.Context(), path, "-b", broker, "-t", name, "-C", "-e", "-q", "-o", "beginning", "-J").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []stranger
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r struct {
			Key     string   `json:"key"`
			Payload string   `json:"payload"`
			Headers []string `json:"headers"` // name, value, name, value …
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("kcat printed %.200s: %v", lines.Bytes(), err)
		}
		v := stranger{Key: r.Key, Value: []byte(r.Payload), Headers: map[string]string{}}
		for i := 0; i+1 < len(r.Headers); i += 2 {
			v.Headers[r.Headers[i]] = r.Headers[i+1]
		}
		list = append(list, v)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

func readBare(t *testing.T, name string) []stranger {
	t.Helper()
	var list []stranger
	for _, r := range readAll(t, name) {
		v := stranger{Key: string(r.Key), Value: r.Value, Headers: map[string]string{}}
		for _, h := range r.Headers {
			v.Headers[h.Key] = strings.ToValidUTF8(string(h.Value), "?")
		}
		list = append(list, v)
	}
	return list
}

// shippedSchema compiles one of the shipped schemas, as a stranger would who
// knows nothing but the files.
func shippedSchema(t *testing.T, name string) func([]byte) error {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	var url string
	for _, each := range spec.Names() {
		raw, err := spec.Schema(each)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		id, _ := doc.(map[string]any)["$id"].(string)
		if err := compiler.AddResource(id, doc); err != nil {
			t.Fatal(err)
		}
		if each == name {
			url = id
		}
	}
	schema, err := compiler.Compile(url)
	if err != nil {
		t.Fatal(err)
	}
	return func(value []byte) error {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
		if err != nil {
			return err
		}
		return schema.Validate(doc)
	}
}
