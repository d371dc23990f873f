package spec

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"time"
)

// policy lets the page load its own script and call its own origin, and
// nothing else. The reader styles itself inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the documents:
//
//	/docs                     a page to read and try the API, without any network
//	/openapi.json             the routes
//	/asyncapi.json            topics and streams
//	/schema/v1/{name}.schema.json
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /docs", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, "docs/index.html", "text/html; charset=utf-8")
	})
	mux.HandleFunc("GET /docs/rapidoc-min.js", serveReader)
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, r *http.Request) { serve(w, r, "openapi.json", "application/json") })
	mux.HandleFunc("GET /asyncapi.json", func(w http.ResponseWriter, r *http.Request) { serve(w, r, "asyncapi.json", "application/json") })
	mux.HandleFunc("GET /schema/v1/{file}", func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutSuffix(r.PathValue("file"), suffix)
		if _, err := Schema(name); !ok || err != nil {
			http.NotFound(w, r)
			return
		}
		serve(w, r, name+suffix, "application/schema+json")
	})
	return mux
}

func serve(w http.ResponseWriter, r *http.Request, file, contentType string) {
	text, err := FS.ReadFile(file)
	if err != nil { // embedded: only a mistake in this package
		http.NotFound(w, r)
		return
	}
	head(w, contentType)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}

func head(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}

// serveReader sends the reader's script as it is kept, compressed; a client
// that cannot take that gets it unpacked.
func serveReader(w http.ResponseWriter, r *http.Request) {
	const file = "docs/rapidoc-min.js.gz"
	w.Header().Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		serve(w, r, file, "text/javascript; charset=utf-8")
		return
	}
	packed, err := FS.Open(file)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer func() { _ = packed.Close() }() // embedded: nothing to lose
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		http.Error(w, "the reader is damaged", http.StatusInternalServerError)
		return
	}
	head(w, "text/javascript; charset=utf-8")
	_, _ = io.Copy(w, unpacked) // the client is gone
}
