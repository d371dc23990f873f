package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// feed runs testsum over events and returns its exit code and output.
func feed(t *testing.T, path, in string, args ...string) (int, string) {
	t.Helper()
	var out strings.Builder
	code := run(append([]string{"-counts", path}, args...), strings.NewReader(in), &out, &out)
	return code, out.String()
}

func TestRunsAddUp(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "counts")
	pass := `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0}
{"Action":"pass","Package":"p","Elapsed":1.25}
`
	skip := `{"Action":"output","Package":"q","Test":"TestB","Output":"    b_test.go:1: no Kafka\n"}
{"Action":"skip","Package":"q","Test":"TestB"}
{"Action":"pass","Package":"q"}
`
	if code, out := feed(t, path, pass); code != 0 || out != "ok    p  1.2s\n" {
		t.Errorf("got %d %q", code, out)
	}
	if code, out := feed(t, path, skip); code != 0 || !strings.Contains(out, "SKIP  q TestB\n    b_test.go:1: no Kafka\n") {
		t.Errorf("got %d %q", code, out)
	}
	if code, out := feed(t, path, "", "-total"); code != 0 || !strings.HasSuffix(out, "\n1 passed, 0 failed, 1 skipped\n") || !strings.Contains(out, "1 tests were SKIPPED") {
		t.Errorf("got %d %q", code, out)
	}
	if code, out := feed(t, path, "", "-total", "-no-skips"); code != 1 || !strings.HasSuffix(out, "\n1 passed, 0 failed, 1 skipped\n") {
		t.Errorf("a skip passed in CI: %d %q", code, out)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, shows string }{
		{"a failing test shows its output and counts once", `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}
`, "    a_test.go:3: wrong\nFAIL  p"},
		{"a package that does not build counts", `{"ImportPath":"p","Action":"build-output","Output":"p/a.go:1:1: syntax error\n"}
{"Action":"fail","Package":"p","FailedBuild":"p"}
`, "syntax error\nFAIL  p"},
		{"a timeout shows what was running", `{"Action":"run","Package":"p","Test":"TestSlow"}
{"Action":"output","Package":"p","Test":"TestSlow","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"p"}
`, "panic: test timed out\nFAIL  p"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "counts")
			code, out := feed(t, path, tc.in)
			if code != 1 || !strings.Contains(out, tc.shows) || strings.Contains(out, "=== RUN") {
				t.Errorf("got %d %q", code, out)
			}
			if code, out := feed(t, path, "", "-total"); code != 1 || out != "0 passed, 1 failed, 0 skipped\n" {
				t.Errorf("got %d %q", code, out)
			}
		})
	}
}

func TestNoTestAtAllIsAFailure(t *testing.T) {
	t.Parallel()
	if code, out := feed(t, filepath.Join(t.TempDir(), "counts"), "", "-total"); code != 1 || !strings.Contains(out, "no test ran") {
		t.Errorf("got %d %q", code, out)
	}
}

func TestWhatTheGoCommandSaysItselfIsPassedOn(t *testing.T) {
	t.Parallel()
	if _, out := feed(t, filepath.Join(t.TempDir(), "counts"), "go: no such tool\n"); out != "go: no such tool\n" {
		t.Errorf("got %q", out)
	}
}
