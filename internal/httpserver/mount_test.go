package httpserver_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestMountServesAllMethodsBelowItsPathAndNothingElse(t *testing.T) {
	b := setup(t, limits(), nil)
	b.Mount("/mounted/*", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path)
	}))
	if _, got := b.do(http.MethodDelete, "/mounted/a/b", nil); got != "DELETE /mounted/a/b" {
		t.Errorf("the handler saw %q", got)
	}
	if res, got := b.do(http.MethodGet, "/elsewhere", nil); res.StatusCode != http.StatusNotFound || strings.HasPrefix(got, "GET") {
		t.Errorf("beside it: %d %s", res.StatusCode, got)
	}
}
