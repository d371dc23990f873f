package spec_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock/penstock/schema/spec"
)

func TestEveryDocumentIsServedAsJSON(t *testing.T) {
	srv := httptest.NewServer(spec.Handler())
	defer srv.Close()
	paths := []string{"/openapi.json", "/asyncapi.json"}
	for _, name := range spec.Names() {
		paths = append(paths, "/schema/v1/"+name+".schema.json")
	}
	files, err := filepath.Glob("*.json")
	if err != nil || len(paths) != len(files) || len(files) < 16 {
		t.Errorf("%d documents %v of %d files, %v", len(paths), paths, len(files), err)
	}
	for _, p := range paths {
		resp, err := srv.Client().Get(srv.URL + p)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d, %v", p, resp.StatusCode, err)
		}
		_ = resp.Body.Close()
		if id, ok := doc["$id"].(string); ok && !strings.HasSuffix(id, p) {
			t.Errorf("%s calls itself %s", p, id)
		}
	}
}

func TestThePageNeedsNoNetwork(t *testing.T) {
	srv := httptest.NewServer(spec.Handler())
	defer srv.Close()
	get := func(path, encoding string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", encoding)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	resp, page := get("/docs", "identity")
	if strings.Contains(page, "http://") || strings.Contains(page, "https://") {
		t.Error("the page names another host")
	}
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("policy %q", csp)
	}
	resp, packed := get("/docs/rapidoc-min.js", "gzip")
	if resp.Header.Get("Content-Encoding") != "gzip" || len(packed) < 100_000 {
		t.Errorf("packed script: %d bytes, encoding %q", len(packed), resp.Header.Get("Content-Encoding"))
	}
	if _, plain := get("/docs/rapidoc-min.js", "identity"); !strings.Contains(plain, "rapi-doc") {
		t.Error("the unpacked script defines no rapi-doc")
	}
	if resp, _ := get("/schema/v1/nothing.schema.json", "identity"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown schema: status %d", resp.StatusCode)
	}
	if _, err := spec.Schema("nothing"); err == nil || !strings.Contains(err.Error(), "submit") {
		t.Errorf("err = %v; want the names there are", err)
	}
}
