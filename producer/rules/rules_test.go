package rules_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/penstock/penstock/producer/rules"
	"github.com/penstock/penstock/schema/task"
)

func known(model string) bool { return strings.HasPrefix(model, "m-") }

func compile(t *testing.T, c rules.Config) (*rules.Set, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	set, err := rules.Compile(c, known, reg)
	if err != nil {
		t.Fatal(err)
	}
	return set, reg
}

func route(t *testing.T, when string, m rules.Message) bool {
	t.Helper()
	set, _ := compile(t, rules.Config{Rules: []rules.Rule{{Name: "r", When: when, Model: "m-a"}}})
	model, ok := set.Route("task_x", m)
	return ok && model == "m-a"
}

func TestExpressionsSeeTheMessage(t *testing.T) {
	t.Parallel()
	text := rules.Message{
		Tenant: "acme", Source: task.SourceWeb, SessionID: "s-1", Labels: map[string]string{"tier": "gold"},
		Payload: &task.Payload{Text: "Where is my INVOICE?", Context: json.RawMessage(`{"page":"/billing","n":3}`)},
	}
	chat := rules.Message{Payload: &task.Payload{Messages: json.RawMessage(
		`[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"hello"},{"type":"image_url"}]}]`)}}
	inputs := rules.Message{Payload: &task.Payload{Inputs: []json.RawMessage{json.RawMessage(`"one"`), json.RawMessage(`[1,2]`), json.RawMessage(`"two"`)}}}
	for _, tc := range []struct {
		when string
		m    rules.Message
		want bool
	}{
		{`source == "web" && tenant == "acme" && session_id == "s-1"`, text, true},
		{`text.contains("invoice")`, text, false},
		{`text_lower.contains("invoice")`, text, true},
		{`length == 20`, text, true},
		{`labels["tier"] == "gold" && "tier" in labels`, text, true},
		{`context.page.startsWith("/bill") && context.n == 3`, text, true},
		{`has(context.vip) && context.vip`, text, false},
		{`has(context.vip)`, chat, false},
		{`"x" in labels`, chat, false},
		{`text == "be brief\nhello"`, chat, true},
		{`text == "one\ntwo"`, inputs, true},
		{`text_lower.matches("in.oice")`, text, true},
	} {
		t.Run(tc.when, func(t *testing.T) {
			t.Parallel()
			if got := route(t, tc.when, tc.m); got != tc.want {
				t.Errorf("matched = %t, want %t", got, tc.want)
			}
		})
	}
}

func TestTheFirstMatchWinsAndTheDefaultComesLast(t *testing.T) {
	t.Parallel()
	set, _ := compile(t, rules.Config{Default: "m-rest", Rules: []rules.Rule{
		{Name: "one", When: `source == "web"`, Model: "m-one"},
		{Name: "two", When: `source in ["web", "app"]`, Model: "m-two"},
	}})
	for source, want := range map[task.Source]string{task.SourceWeb: "m-one", task.SourceApp: "m-two", task.SourceIOT: "m-rest"} {
		if got, ok := set.Route("task_x", rules.Message{Source: source, Payload: &task.Payload{Text: "x"}}); !ok || got != want {
			t.Errorf("%s went to %q, want %q", source, got, want)
		}
	}
	t.Run("and without one nothing is found", func(t *testing.T) {
		t.Parallel()
		set, _ := compile(t, rules.Config{})
		if model, ok := set.Route("task_x", rules.Message{Payload: &task.Payload{}}); ok {
			t.Errorf("found %q", model)
		}
	})
}

func TestWeightsSplitByTheIDAlone(t *testing.T) {
	t.Parallel()
	set, _ := compile(t, rules.Config{Rules: []rules.Rule{{Name: "canary", When: "true", Models: []rules.Target{
		{Model: "m-old", Weight: 90}, {Model: "m-new", Weight: 10}, {Model: "m-off", Weight: 0},
	}}}})
	m := rules.Message{Payload: &task.Payload{Text: "x"}}
	counts := map[string]int{}
	const n = 20_000
	for i := range n {
		id := task.ID(fmt.Sprintf("task_%d", i))
		first, _ := set.Route(id, m)
		if again, _ := set.Route(id, m); again != first {
			t.Fatalf("%s went to %s, then to %s", id, first, again)
		}
		counts[first]++
	}
	if share := float64(counts["m-new"]) / n; share < 0.09 || share > 0.11 || counts["m-off"] != 0 {
		t.Errorf("shares %v, want 10 %% for m-new and none for m-off", counts)
	}
}

func TestAFailingExpressionDoesNotMatchAndIsCounted(t *testing.T) {
	t.Parallel()
	set, reg := compile(t, rules.Config{Default: "m-rest", Rules: []rules.Rule{
		{Name: "no such key", When: `context.vip == true`, Model: "m-a"},
		{Name: "costly", When: `[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c,
			[1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a+b+c+d+e+f > 0))))))`, Model: "m-a"},
	}})
	got, ok := set.Route("task_x", rules.Message{Payload: &task.Payload{Text: "x"}})
	if !ok || got != "m-rest" {
		t.Errorf("went to %q, want the default", got)
	}
	want := `
# HELP penstock_producer_rule_failures_total Routing expressions that failed or cost too much, and so did not match.
# TYPE penstock_producer_rule_failures_total counter
penstock_producer_rule_failures_total{rule="costly"} 1
penstock_producer_rule_failures_total{rule="no such key"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestALongTextIsCutForExpressionsButCounted(t *testing.T) {
	t.Parallel()
	m := rules.Message{Payload: &task.Payload{Text: strings.Repeat("ä", rules.MaxText) + "end"}}
	if !route(t, fmt.Sprintf(`length == %d && !text.contains("end") && size(text) == %d`, rules.MaxText+3, rules.MaxText/2), m) {
		t.Error("text was not cut, or length does not count all of it")
	}
}

func TestCompileNamesTheRule(t *testing.T) {
	t.Parallel()
	ok := rules.Rule{Name: "fine", When: "true", Model: "m-a"}
	for _, tc := range []struct {
		want string
		c    rules.Config
	}{
		{`rule "broken": when: ERROR`, rules.Config{Rules: []rules.Rule{ok, {Name: "broken", When: `source = "web"`, Model: "m-a"}}}},
		{`rule "typo": when: ERROR`, rules.Config{Rules: []rules.Rule{{Name: "typo", When: `sauce == "web"`, Model: "m-a"}}}},
		{`rule "number": when: is a int, must be a bool`, rules.Config{Rules: []rules.Rule{{Name: "number", When: `length`, Model: "m-a"}}}},
		{`rule "#1": when is required`, rules.Config{Rules: []rules.Rule{{Model: "m-a"}}}},
		{`rule "nowhere": model, or models`, rules.Config{Rules: []rules.Rule{{Name: "nowhere", When: "true"}}}},
		{`rule "lost": model "x" does not exist`, rules.Config{Rules: []rules.Rule{{Name: "lost", When: "true", Model: "x"}}}},
		{`rule "both": give model or models`, rules.Config{Rules: []rules.Rule{{Name: "both", When: "true", Model: "m-a", Models: []rules.Target{{Model: "m-b", Weight: 1}}}}}},
		{`rule "minus": weight of "m-b" is negative`, rules.Config{Rules: []rules.Rule{{Name: "minus", When: "true", Models: []rules.Target{{Model: "m-b", Weight: -1}}}}}},
		{`rule "fine": the name is used twice`, rules.Config{Rules: []rules.Rule{ok, ok}}},
		{`default: model "x" does not exist`, rules.Config{Default: "x"}},
	} {
		t.Run(tc.want, func(t *testing.T) {
			t.Parallel()
			_, err := rules.Compile(tc.c, known, prometheus.NewRegistry())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("and every broken rule at once", func(t *testing.T) {
		t.Parallel()
		_, err := rules.Compile(rules.Config{Default: "x", Rules: []rules.Rule{{Name: "a", When: "("}, {Name: "b", When: "true"}}}, known, prometheus.NewRegistry())
		for _, want := range []string{`rule "a"`, `rule "b"`, "default:"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not name %s", err, want)
			}
		}
	})
}

func TestLoadReadsYAMLStrictly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("default: m-a\nrules:\n  - name: web\n    when: source == \"web\"\n    models:\n      - {model: m-a, weight: 3}\n")
	c, err := rules.Load(path)
	if err != nil || c.Default != "m-a" || len(c.Rules) != 1 || c.Rules[0].Models[0].Weight != 3 {
		t.Errorf("read %+v, %v", c, err)
	}
	write("rules:\n  - name: web\n    wenn: \"true\"\n")
	if _, err := rules.Load(path); err == nil || !strings.Contains(err.Error(), "wenn") {
		t.Errorf("a misspelt field passed: %v", err)
	}
	if _, err := rules.Load(path + ".missing"); err == nil {
		t.Error("a missing file passed")
	}
}

func BenchmarkRoute(b *testing.B) {
	set, err := rules.Compile(rules.Config{Default: "m-a", Rules: []rules.Rule{
		{Name: "one", When: `source == "web" && text_lower.contains("invoice")`, Model: "m-a"},
	}}, known, prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	m := rules.Message{Source: task.SourceWeb, Payload: &task.Payload{Text: strings.Repeat("some words ", 30)}}
	b.ReportAllocs()
	for b.Loop() {
		set.Route("task_x", m)
	}
}
