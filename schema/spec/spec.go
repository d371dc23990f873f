// Package spec holds the contract's documents: JSON Schema 2020-12 for bodies
// and records, OpenAPI 3.1 for the routes, AsyncAPI 3.0 for topics and streams,
// and a page to read them with, offline.
package spec

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

// FS holds every document, at its root: *.schema.json, openapi.json and
// asyncapi.json.
//
//go:embed *.json docs
var FS embed.FS

const suffix = ".schema.json"

// Schema returns the JSON Schema of a name: submit, batch, forward, chat,
// completion, embedding, moderation, response, bulk, session, task, terminal, event, webhook, conversation or deadletter.
func Schema(name string) ([]byte, error) {
	text, err := FS.ReadFile(name + suffix)
	if err != nil {
		return nil, fmt.Errorf("no schema %q; there are %s", name, strings.Join(Names(), ", "))
	}
	return text, nil
}

// Names returns the names of all schemas, in order.
func Names() []string {
	files, err := fs.Glob(FS, "*"+suffix)
	if err != nil { // only for a bad pattern
		panic(err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(f, suffix)
	}
	return files
}
