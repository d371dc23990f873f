package httpserver

import (
	"net/http"
	"os"
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
// flush. Nothing waits for a client for long: whoever does not take a frame in
// time is cut.
type StreamWriter struct {
	to      http.ResponseWriter
	known   *about // counts what is written past Echo, and knows the server's patience
	timeout time.Duration
}

// NewStreamWriter returns a writer that gives a client so long for one event.
func NewStreamWriter(c echo.Context, timeout time.Duration) StreamWriter {
	p := aboutOf(c).patience
	if p == nil { // a router that no Server serves
		p = new(patience)
	}
	return StreamWriter{to: c.Response(), known: &about{patience: p}, timeout: timeout}
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

// Send writes one frame.
func (w StreamWriter) Send(frame []byte) error {
	w.known.patience.begin(w.to, time.Now().Add(w.timeout+time.Duration(len(frame)/slowest)*time.Second))
	err := w.write(frame)
	if cut := w.known.patience.end(w.to); cut && err == nil {
		return os.ErrDeadlineExceeded // as late as it was, nothing can follow it
	}
	return err
}

func (w StreamWriter) write(frame []byte) error {
	n, err := w.to.Write(frame)
	w.known.sent += int64(n)
	if err != nil {
		return err
	}
	return http.NewResponseController(w.to).Flush()
}
