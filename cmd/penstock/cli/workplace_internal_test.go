package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestServicesOfAnotherCommitAreRefused(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	put := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bin, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := builtTogether(self, bin); err != nil {
		t.Errorf("services that are not there: %v", err)
	}
	put("penstock-worker", raw)
	if err := builtTogether(self, bin); err != nil {
		t.Errorf("a service of the same build: %v", err)
	}
	put("penstock-resultsvc", []byte("no binary"))
	if err := builtTogether(self, bin); err == nil || !strings.Contains(err.Error(), "penstock-resultsvc") {
		t.Errorf("a file that is no binary: %v", err)
	}
	// A test's own binary has no commit. The other gets one, of no more bytes.
	marked := regexp.MustCompile(`build\tCGO_ENABLED=[01]\n`).ReplaceAll(raw, []byte("build\tvcs.revision=\n"))
	if bytes.Equal(marked, raw) {
		t.Fatal("this binary does not say how it was built")
	}
	put("penstock-resultsvc", marked)
	if err := builtTogether(self, bin); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("a service of another commit: %v", err)
	}
}
