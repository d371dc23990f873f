package httpserver

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/schema/fault"
)

const (
	// uploadIdle is the longest pause within an upload.
	uploadIdle = bodyTimeout
	// uploadRate is the least an upload must bring in the long run, in bytes a
	// second: a place that it takes is wanted by others.
	uploadRate = 64 << 10
)

// Upload is a body that is too large to be held: it is read as it comes.
type Upload struct {
	raw     countingReader
	limit   int64
	began   time.Time
	control *http.ResponseController
}

// OpenUpload makes the request's body one of at most limit bytes, which its
// handler reads to the end or gives up with Close. More is a 413; a body that
// pauses for 30 s, or brings less than 64 KiB a second in the long run, a 408;
// one that is cut short a 400; any Content-Encoding a 415.
func OpenUpload(c echo.Context, limit int64) (*Upload, error) {
	req := c.Request()
	switch req.Header.Get(echo.HeaderContentEncoding) {
	case "", "identity":
	default:
		return nil, Fail(fault.Unsupported, "send an upload without Content-Encoding")
	}
	u := &Upload{raw: countingReader{r: req.Body}, limit: limit, began: time.Now(), control: http.NewResponseController(c.Response())}
	if req.ContentLength > limit {
		if req.Header.Get("Expect") == "" { // who waits for "100 Continue" has sent nothing yet
			u.swallow()
		}
		return nil, tooLargeError(limit)
	}
	req.Body = u
	return u, nil
}

// Read implements io.Reader. Its errors are *Error.
func (u *Upload) Read(p []byte) (int, error) {
	u.hurry()
	n, err := u.raw.Read(p)
	switch {
	case u.raw.n > u.limit:
		return n, tooLargeError(u.limit)
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	}
	return n, bodyError(err)
}

// hurry sets until when the next bytes must be here.
func (u *Upload) hurry() {
	idle := time.Now().Add(uploadIdle)
	slowest := u.began.Add(uploadIdle + time.Duration(u.raw.n)*time.Second/uploadRate)
	if slowest.Before(idle) {
		idle = slowest
	}
	_ = u.control.SetReadDeadline(idle) // a test's recorder has none
}

// swallow discards up to twice the limit, because a client that is still sending
// when the connection closes sees a reset instead of the answer.
func (u *Upload) swallow() {
	for u.raw.n < 2*u.limit {
		u.hurry()
		if _, err := io.CopyN(io.Discard, &u.raw, readStep); err != nil {
			return // an early end is the best that can happen
		}
	}
}

// readStep is how much is swallowed between two looks at the clock.
const readStep = 64 << 10

// Close implements io.Closer. What was not read is swallowed, so that the answer
// reaches a client that is still sending.
func (u *Upload) Close() error {
	u.swallow()
	_ = u.control.SetReadDeadline(time.Time{})
	return nil
}
