package sse

import (
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
)

// appendFrame writes one event as an SSE frame. Its data is one line of JSON
// that bears the event's own id; id is what the client resumes after, and is
// left out if empty.
func appendFrame(b []byte, e eventlog.Entry, id string) []byte {
	if id != "" {
		b = append(b, "id: "...)
		b = appendLine(b, id)
		b = append(b, '\n')
	}
	b = append(b, "event: "...)
	b = appendLine(b, string(e.Type()))
	b = append(b, "\ndata: "...)
	from := len(b)
	b = e.AppendJSON(b)
	oneLine(b[from:])
	return append(b, "\n\n"...)
}

// appendLine adds text as part of one line.
func appendLine(b []byte, text string) []byte {
	from := len(b)
	b = append(b, text...)
	oneLine(b[from:])
	return b
}

// oneLine keeps text on its line: CR, LF and NUL end one for some reader or
// other. In JSON they can only stand between tokens, where a space means the
// same.
func oneLine(b []byte) {
	for i, c := range b {
		if c == '\n' || c == '\r' || c == 0 {
			b[i] = ' '
		}
	}
}

// pingFrame is a comment: it keeps proxies from closing a quiet connection.
const pingFrame = ": ping\n\n"

// appendReconnect writes the last frame of a stream that the client should
// open again, after its own wait: clients do not come back as a herd.
func appendReconnect(b []byte, wait time.Duration, reason string) []byte {
	b = appendRetry(b, wait)
	b = append(b, "event: "...)
	b = append(b, event.Reconnect...)
	b = append(b, "\ndata: {\"type\":\"reconnect\",\"reason\":\""...)
	b = append(b, reason...)
	return append(b, "\"}\n\n"...)
}

func appendRetry(b []byte, wait time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, wait.Milliseconds(), 10)
	return append(b, '\n')
}
