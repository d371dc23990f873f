package telemetry

import (
	"crypto/rand"
	"strings"
)

// maxRequestID bounds an id that a caller chose, in bytes.
const maxRequestID = 128

// RequestID returns the id a caller gave a request if it is short and printable,
// else a new one.
func RequestID(given string) string {
	unprintable := func(r rune) bool { return r <= ' ' || r > '~' }
	if given != "" && len(given) <= maxRequestID && !strings.ContainsFunc(given, unprintable) {
		return given
	}
	return rand.Text()
}
