package dev

import (
	"embed"
	"net/http"
	"path"
	"strings"
)

// chatFiles are the example of a chat: a page over the task API, as any web
// site could have it.
//
//go:embed chat
var chatFiles embed.FS

// chatPolicy lets the page load its own files and call its own origin.
const chatPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// serveChat serves the page at /chat and its files below.
func serveChat(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if name == "chat" {
		name = "chat/index.html"
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", chatPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	http.ServeFileFS(w, r, chatFiles, name)
}
