package httpserver

import (
	"errors"
	"io"
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
	to      io.Writer
	control *http.ResponseController
	timeout time.Duration
}

// NewStreamWriter returns a writer that gives a client so long for one event.
func NewStreamWriter(c echo.Context, timeout time.Duration) StreamWriter {
	return StreamWriter{to: c.Response(), control: http.NewResponseController(c.Response()), timeout: timeout}
}

// slowest is the pace, in bytes a second, at which a client must take what is
// larger than one event of tokens.
const slowest = 1 << 20

// Send writes one frame.
func (w StreamWriter) Send(frame []byte) error {
	// A recorder in a test has no deadlines; a real connection always has.
	patience := w.timeout + time.Duration(len(frame)/slowest)*time.Second
	if err := w.control.SetWriteDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := w.to.Write(frame); err != nil {
		return err
	}
	return w.control.Flush()
}
