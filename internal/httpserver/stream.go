package httpserver

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// BeginStream sends the head of an event stream.
func BeginStream(c echo.Context) error {
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set(echo.HeaderCacheControl, "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	c.Response().WriteHeader(http.StatusOK)
	return http.NewResponseController(c.Response()).Flush()
}

// StreamWriter writes the frames of an event stream, each in one write and one
// flush with its own deadline: nothing waits for a client for long.
type StreamWriter struct {
	to      http.ResponseWriter
	known   *about // counts what is written past Echo
	timeout time.Duration
}

// NewStreamWriter returns a writer that gives a client so long for one event.
func NewStreamWriter(c echo.Context, timeout time.Duration) StreamWriter {
	return StreamWriter{to: c.Response(), known: &about{}, timeout: timeout}
}

// NewLaterWriter is NewStreamWriter for what Later runs: it writes past Echo, so
// BeginStream must have been called.
func NewLaterWriter(c echo.Context, timeout time.Duration) StreamWriter {
	known := aboutOf(c)
	if known.ResponseWriter == nil { // Later runs it at once
		return NewStreamWriter(c, timeout)
	}
	return StreamWriter{to: known.ResponseWriter, known: known, timeout: timeout}
}

// slowest is the pace, in bytes a second, at which a client must take what is
// larger than one event of tokens.
const slowest = 1 << 20

// Send writes one frame. Its deadline ends with it: net/http would keep it for
// what the client asks next on the same connection.
func (w StreamWriter) Send(frame []byte) error {
	if err := w.deadline(time.Now().Add(w.timeout + time.Duration(len(frame)/slowest)*time.Second)); err != nil {
		return err
	}
	n, err := w.to.Write(frame)
	w.known.sent += int64(n)
	if err != nil {
		return err
	}
	if err := http.NewResponseController(w.to).Flush(); err != nil {
		return err
	}
	return w.deadline(time.Time{})
}

// deadline sets that of the next write. A recorder in a test has none; a real
// connection always has.
func (w StreamWriter) deadline(at time.Time) error {
	if err := http.NewResponseController(w.to).SetWriteDeadline(at); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
