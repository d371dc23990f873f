package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Killing them all takes minutes and is done at night; that each still means
// something is seen on every push.
func TestEveryMutantApplies(t *testing.T) {
	root, err := treeRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range mutants() {
		if _, err := m.apply(root); err != nil {
			t.Error(err)
		}
		if names[m.name] || m.rule == "" || len(m.tests) == 0 || m.old == m.new {
			t.Errorf("mutant %s: needs a name of its own, a rule, tests and a change", m.name)
		}
		names[m.name] = true
	}
}

// workspace is a tree of one module whose test is good or bad at noticing.
func workspace(t *testing.T, test string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.work":     "go 1.26\n\nuse .\n",
		"go.mod":      "module example.com/m\n\ngo 1.26\n",
		"sum.go":      "package m\n\nfunc Sum(a, b int) int { return a + b }\n",
		"sum_test.go": "package m\n\nimport \"testing\"\n\nfunc TestSum(t *testing.T) {\n" + test + "\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "go", "-C", root, "vet", "./...").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return root
}

func TestAMutantIsKilledOnlyByATestThatFails(t *testing.T) {
	minus := mutant{name: "minus", file: "sum.go", old: "a + b", new: "a - b", tests: []string{"./..."}}
	good := workspace(t, "if Sum(1, 2) != 3 { t.Error(\"wrong\") }")
	v, err := minus.try(t.Context(), good)
	if err != nil || v.killedBy != "TestSum" {
		t.Errorf("a test that looks: %+v, %v", v, err)
	}
	if err := tryAll(t.Context(), good, []mutant{minus}, io.Discard); err != nil {
		t.Errorf("all were killed, and yet: %v", err)
	}
	blind := workspace(t, "_ = Sum(1, 2)")
	if err := tryAll(t.Context(), blind, []mutant{minus}, io.Discard); err == nil || !strings.Contains(err.Error(), "minus") {
		t.Errorf("a test that does not look: %v", err)
	}
	for name, m := range map[string]mutant{
		"that does not compile":    {file: "sum.go", old: "a + b", new: "a +", tests: []string{"./..."}},
		"that no longer applies":   {file: "sum.go", old: "a * b", new: "a - b", tests: []string{"./..."}},
		"that applies in 2 places": {file: "sum.go", old: "a", new: "b", tests: []string{"./..."}},
	} {
		if v, err := m.try(t.Context(), good); err == nil {
			t.Errorf("a mutant %s counts as %+v", name, v)
		}
	}
}
