// Package spec is a working copy of schema/spec.
package spec

import "embed"

//go:embed *.schema.json
var FS embed.FS
