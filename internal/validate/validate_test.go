package validate_test

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

func sample(tb testing.TB) *validate.Schema {
	tb.Helper()
	set, err := validate.Compile(os.DirFS("testdata"))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := set.Schema("sample")
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestDocumentRefusesWhatIsNotStrictJSON(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, tc := range []struct{ name, in, want string }{
		{"nothing", ``, `body: is empty`},
		{"white space only", " \n", `body: is empty`},
		{"text that is not JSON", `hello`, `body: not valid JSON, invalid character 'h' at start of value at byte 0`},
		{"a value cut short", `{"a":[1,`, `a: ends in the middle of a value at byte 8`},
		{"a string cut short", `{"a":"b`, `a: ends in the middle of a value at byte 7`},
		{"a duplicate name", `{"a":{"x":1,"x":2}}`, `a.x: duplicate name at byte 12`},
		{"a duplicate name in another spelling", `{"x":1,"\u0078":2}`, `x: duplicate name at byte 7`},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", `a: not valid JSON, invalid UTF-8 at byte 6`},
		{"a lone surrogate", `["\ud800"]`, "[0]: not valid JSON, invalid surrogate pair `\\ud800\"]` in string at byte 2"},
		{"a second value", `{} {}`, `body: not valid JSON, invalid character '{' after top-level value at byte 3`},
		{"garbage behind the value", `[1]x`, `body: not valid JSON, invalid character 'x' after top-level value at byte 3`},
		{"one level too deep", deep(api.MaxDepth + 1), `body: nested deeper than 64 levels at byte 64`},
		{"objects too deep", strings.Repeat(`{"a":`, 100_000), `body: nested deeper than 64 levels at byte 320`},
		{"brackets behind strings with quotes", `["\"","\\\\",` + deep(api.MaxDepth) + `]`, `body: nested deeper than 64 levels at byte 76`},
		{"a trailing comma", `[1,]`, `body: not valid JSON, invalid character ',' at start of value at byte 2`},
		{"a number beyond every float", `{"a":1e999}`, `a: number out of range at byte 5`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := validate.Document([]byte(tc.in))
			verr, ok := errors.AsType[*validate.Error](err)
			if !ok {
				t.Fatalf("got %v, want an *Error", err)
			}
			if verr.Code != fault.Malformed || verr.Error() != tc.want {
				t.Errorf("got %s %q, want malformed %q", verr.Code, verr.Error(), tc.want)
			}
		})
	}
	t.Run("and does not count brackets in strings", func(t *testing.T) {
		t.Parallel()
		if _, err := validate.Document([]byte(`["\"` + strings.Repeat("[", 100) + `"]`)); err != nil {
			t.Error(err)
		}
	})
	t.Run("and passes the deepest allowed value", func(t *testing.T) {
		t.Parallel()
		if _, err := validate.Document([]byte(deep(api.MaxDepth))); err != nil {
			t.Error(err)
		}
	})
}

func TestElementsSplitsAListWithoutJudgingItsItems(t *testing.T) {
	t.Parallel()
	const member, most = "tasks", 3
	for _, tc := range []struct {
		name, in string
		want     []string
		err      string
	}{
		{"items of every sort", `{"tasks":[{"a":1,"a":2}, 7 ,"x"]}`, []string{`{"a":1,"a":2}`, `7`, `"x"`}, ""},
		{"an empty list", `{"tasks":[]}`, []string{}, ""},
		{"nothing", ``, nil, "body: is empty"},
		{"another value", `[1]`, nil, "body: expected object"},
		{"another member", `{"task":[]}`, nil, "task: unknown field at byte 1"},
		{"no member", `{}`, nil, "tasks: is required"},
		{"a member that is no list", `{"tasks":{}}`, nil, "tasks: expected array"},
		{"the member twice", `{"tasks":[],"tasks":[1]}`, nil, "tasks: duplicate name at byte 11"},
		{"one item too many", `{"tasks":[1,2,3,4,`, nil, "tasks: has more than 3 items"},
		{"an item cut short", `{"tasks":[{"a":`, nil, "tasks[0].a: ends in the middle of a value at byte 15"},
		{"a list cut short", `{"tasks":[1`, nil, "tasks: ends in the middle of a value at byte 11"},
		{"data behind the body", `{"tasks":[1]}x`, nil, "body: data after the end of the JSON value at byte 13"},
		{"an item 100,000 levels deep", `{"tasks":[` + strings.Repeat("[", 100_000), nil, "tasks" + strings.Repeat("[0]", 83) + "…: not valid JSON, exceeded max depth at byte 10008"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := validate.Elements([]byte(tc.in), member, most)
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Errorf("got %v, want %s", err, tc.err)
				}
				return
			}
			texts := []string{}
			for _, item := range got {
				texts = append(texts, string(item))
			}
			if diff := cmp.Diff(tc.want, texts); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

func TestSchemaNamesTheWorstOffence(t *testing.T) {
	t.Parallel()
	s := sample(t)
	for _, tc := range []struct {
		name, in, path, reason string
		code                   fault.Code
	}{
		{"a wrong type deep in the body", `{"payload":{"messages":[{"role":7}]}}`, "payload.messages[0].role", "expected string, got number", fault.Malformed},
		{"a body that is no object", `[]`, "", "expected object, got array", fault.Malformed},
		{"a missing field", `{"model":"m"}`, "payload", "is required", fault.Malformed},
		{"a payload in no form", `{"payload":{}}`, "payload", "needs one of inputs, messages, text", fault.Malformed},
		{"a payload in two forms", `{"payload":{"text":"a","inputs":[]}}`, "payload", "has more than one of the allowed forms, give exactly one", fault.Malformed},
		{"a missing field inside", `{"payload":{"messages":[{"role":"user"},{}]}}`, "payload.messages[1].role", "is required", fault.Malformed},
		{"a value of no branch", `{"payload":{"messages":[{"role":"user","content":3}]}}`, "payload.messages[0].content", "expected array or string", fault.Malformed},
		{"the branch that fits best", `{"payload":{"messages":[{"role":"user","content":[{"type":1}]}]}}`, "payload.messages[0].content[0].type", "expected string, got number", fault.Malformed},
		{"an unknown field", `{"payload":{"text":"a"},"modle":"x"}`, "modle", "unknown field", fault.Malformed},
		{"an unknown word", `{"payload":{"text":"a"},"class":"secret words"}`, "class", `expected one of "interactive", "standard", "bulk"`, fault.Malformed},
		{"a date that is none", `{"payload":{"text":"a"},"deadline":"tomorrow"}`, "deadline", "is not a valid date-time", fault.Malformed},
		{"a number out of range", `{"payload":{"text":"a"},"n":0}`, "n", "must be at least 1", fault.Malformed},
		{"a number that is not whole", `{"payload":{"text":"a"},"n":1.5}`, "n", "expected integer, got number", fault.Malformed},
		{"an empty text", `{"payload":{"text":""}}`, "payload.text", "must not be empty", fault.Malformed},
		{"a text over its limit", `{"payload":{"text":"a"},"model":"12345678901234567"}`, "model", "has 17 characters, at most 16 are allowed", fault.TooLarge},
		{"too many items", `{"payload":{"inputs":[1,2,3,4]}}`, "payload.inputs", "has 4 items, at most 3 are allowed", fault.TooLarge},
		{"too many labels", `{"payload":{"text":"a"},"labels":{"a":"1","b":"2","c":"3"}}`, "labels", "has 3 members, at most 2 are allowed", fault.TooLarge},
		{"a long label name", `{"payload":{"text":"a"},"labels":{"123456789":"1"}}`, "labels[\"123456789\"]", "has a name of 9 characters, at most 8 are allowed", fault.TooLarge},
		{"a name with odd characters", `{"payload":{"text":"a"},"la bel":1}`, `["la bel"]`, "unknown field", fault.Malformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for range 8 { // maps are walked in random order
				var out any
				verr, ok := errors.AsType[*validate.Error](s.Decode([]byte(tc.in), &out))
				if !ok {
					t.Fatal("accepted")
				}
				if diff := cmp.Diff(&validate.Error{Code: tc.code, Path: tc.path, Offset: -1, Reason: tc.reason}, verr); diff != "" {
					t.Fatal(diff)
				}
			}
		})
	}
}

func TestDecodeMatchesNamesExactly(t *testing.T) {
	t.Parallel()
	set, err := validate.Compile(os.DirFS("testdata"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := set.Schema("payload")
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Text string `json:"text"`
	}
	if err := s.Decode([]byte(`{"text":"right","Text":"wrong"}`), &out); err != nil || out.Text != "right" {
		t.Errorf("got %q, %v: a name in another case replaced the field the schema checked", out.Text, err)
	}
}

func TestErrorsNeverRepeatValues(t *testing.T) {
	t.Parallel()
	const canary = "CANARY-7f3a"
	s := sample(t)
	for _, in := range []string{
		`{"payload":"` + canary + `"}`,
		`{"payload":{"text":["` + canary + `"]}}`,
		`{"payload":{"text":"` + canary + `"},"class":"` + canary + `"}`,
		`{"payload":{"text":"` + canary + `"},"deadline":"` + canary + `"}`,
		`{"payload":{"text":"` + canary + `"},"model":"` + canary + canary + `"}`,
		`{"payload":{"text":"` + canary + `"`,
		`{"payload":` + canary + `}`,
		`{"payload":{"text":"` + canary + "\x01" + `"}}`,
	} {
		var out any
		if err := s.Decode([]byte(in), &out); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestPathsStayShort(t *testing.T) {
	t.Parallel()
	err := sample(t).Check(map[string]any{"payload": map[string]any{"text": "a"}, strings.Repeat("ä", 1<<20): int64(1)})
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("message of %d bytes", len(err.Error()))
	}
}

func TestCompileRefusesABrokenSet(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"a schema that is not JSON":      {"a.schema.json": "{"},
		"a schema that is not a schema":  {"a.schema.json": `{"type":"strnig"}`},
		"a reference outside of the set": {"a.schema.json": `{"$ref":"https://example.test/other.json"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, text := range files {
				if err := os.WriteFile(dir+"/"+file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := validate.Compile(os.DirFS(dir)); err == nil {
				t.Error("compiled")
			}
		})
	}
	t.Run("and has no schema it was not given", func(t *testing.T) {
		t.Parallel()
		set, err := validate.Compile(os.DirFS("testdata"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.Schema("nope"); err == nil {
			t.Error("found a schema that does not exist")
		}
	})
}

// FuzzDocument compares the strict reader with encoding/json: what it accepts
// the standard library accepts with the same value, and nothing makes it panic.
func FuzzDocument(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[1,2.5,"x",null,true]}`, `[`, `{"a":1,"a":2}`, "\"\xff\"", `1e999`, `"\ud83d\ude00"`, strings.Repeat("[", 70), `{"tasks":[1,{}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = validate.Elements(data, "tasks", 4)
		got, err := validate.Document(data)
		if err != nil {
			if _, ok := errors.AsType[*validate.Error](err); !ok {
				t.Fatalf("unclassified error %v", err)
			}
			return
		}
		var want any
		if err := json.Unmarshal(data, &want); err != nil || !reflect.DeepEqual(want, got) {
			t.Fatalf("read %s as %v: %v", data, got, err)
		}
	})
}

const body = `{"model":"sim-chat","payload":{"messages":[{"role":"system","content":"You answer in one sentence and never guess."},` +
	`{"role":"user","content":"What does a penstock do in a hydroelectric plant, and why is it gated?"}]},` +
	`"params":{"max_tokens":64,"temperature":0.2,"top_p":1},"stream":true,"class":"interactive","labels":{"run":"1"}}`

func BenchmarkDecode(b *testing.B) {
	s := sample(b)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var out api.SubmitRequest
		if err := s.Decode([]byte(body), &out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDocument(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := validate.Document([]byte(body)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTooDeep(b *testing.B) {
	deep := []byte(strings.Repeat("[", 100_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := validate.Document(deep); err == nil {
			b.Fatal("accepted")
		}
	}
}
