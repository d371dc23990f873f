package arch_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestEveryDependencyHasItsReason reads the modules that ours require directly
// and looks for each on the page that says why it is there.
func TestEveryDependencyHasItsReason(t *testing.T) {
	page, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.GoMod}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for file := range strings.FieldsSeq(string(dirs)) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(strings.TrimPrefix(line, "require "))
			if len(fields) != 2 || !strings.HasPrefix(fields[1], "v") || strings.HasPrefix(fields[0], prefix) {
				continue // indirect ones have a comment
			}
			seen++
			if name := shortName(fields[0]); !strings.Contains(string(page), name) {
				t.Errorf("%s requires %s, and docs/dependencies.md does not say why (looked for %q)", file, fields[0], name)
			}
		}
	}
	if seen < 10 {
		t.Errorf("%d direct requirements found", seen)
	}
}

// shortName is how the page calls a module: its repository on GitHub, else its
// last word that is no version.
func shortName(module string) string {
	words := strings.Split(module, "/")
	if words[0] == "github.com" {
		return words[2]
	}
	last := words[len(words)-1]
	if len(last) == 2 && last[0] == 'v' {
		last = words[len(words)-2]
	}
	return last
}
