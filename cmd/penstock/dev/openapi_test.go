package dev

import (
	"context"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/penstock/penstock/schema/spec"
)

func document(t *testing.T) *openapi3.T {
	t.Helper()
	text, err := spec.FS.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTheOpenAPIDocumentAndItsExamplesAreValid(t *testing.T) {
	doc := document(t)
	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
}

func TestDocumentedRoutesAndServedRoutesAreTheSame(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	s, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	parameter := regexp.MustCompile(`:(\w+)`)
	served := map[string]bool{}
	for _, r := range s.server.Echo().Routes() {
		path := parameter.ReplaceAllString(r.Path, "{$1}")
		if path == "/v1/models/*" { // ids with a slash, raw
			path = "/v1/models/{id}"
		}
		if strings.HasSuffix(path, "*") || path == "/metrics" || path == "/chat" || strings.Contains(path, "docs") || strings.HasSuffix(path, ".json") {
			continue // the operator's routes are asked for below; pages, documents and metrics are no API
		}
		if slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodDelete}, r.Method) {
			served[r.Method+" "+path] = true
		}
	}
	for path, item := range document(t).Paths.Map() {
		for method := range item.Operations() {
			route := method + " " + path
			if strings.HasPrefix(path, "/admin/") {
				continue
			}
			if !served[route] {
				t.Errorf("%s is documented and not served", route)
			}
			delete(served, route)
		}
	}
	for route := range served {
		t.Errorf("%s is served and not documented", route)
	}
}
