package sse

import (
	"bytes"
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
	b = appendData(b, e)
	return append(b, "\n\n"...)
}

// appendData puts the id into the stored JSON without decoding it.
func appendData(b []byte, e eventlog.Entry) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, e.ID.String()...)
	b = append(b, '"')
	rest := bytes.TrimLeft(e.Data, " \t\r\n")
	if len(rest) < 2 || rest[0] != '{' {
		return append(b, '}') // not an event of ours: its id is all there is to say
	}
	rest = bytes.TrimLeft(rest[1:], " \t\r\n")
	if rest[0] != '}' {
		b = append(b, ',')
	}
	return appendLine(b, rest)
}

// appendLine adds text as part of one line: CR, LF and NUL end a line for some
// reader or other. In JSON they can only stand between tokens, where a space
// means the same.
func appendLine[T string | []byte](b []byte, text T) []byte {
	from := len(b)
	b = append(b, text...)
	for i := from; i < len(b); i++ {
		if c := b[i]; c == '\n' || c == '\r' || c == 0 {
			b[i] = ' '
		}
	}
	return b
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
