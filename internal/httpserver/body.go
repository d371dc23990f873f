package httpserver

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/schema/fault"
)

// ReadBody returns the whole body, decompressed if it came as gzip. A limit of
// 0 is the server's body_limit. The limit holds for the bytes sent and for the
// bytes they decompress to; more is a 413. Another Content-Encoding is a 415,
// broken gzip or a body cut short a 400, and one slower than 30 s a 408.
//
// Before a 413 it swallows up to twice the limit, because a client that is
// still sending when the connection closes sees a reset instead of the answer.
func ReadBody(c echo.Context, limit int64) ([]byte, error) {
	if limit <= 0 {
		limit = BodyLimit(c)
	}
	req, control := c.Request(), http.NewResponseController(c.Response())
	zipped, err := isGzip(req.Header.Get(echo.HeaderContentEncoding))
	if err != nil {
		c.Response().Header().Set(echo.HeaderAcceptEncoding, "gzip")
		return nil, err
	}
	// ErrNotSupported (a test's recorder) leaves the body without a deadline.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	raw := &countingReader{r: req.Body}
	body, err := readAll(raw, zipped, limit, req.ContentLength)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusRequestEntityTooLarge {
		if raw.n > 0 || req.Header.Get("Expect") == "" { // who waits for "100 Continue" has sent nothing yet
			swallow(raw, 2*limit)
		}
	}
	return body, err
}

// BodyLimit is the server's body_limit.
func BodyLimit(c echo.Context) int64 {
	limit := aboutOf(c).bodyLimit
	return limit
}

// isGzip reads a Content-Encoding.
func isGzip(encoding string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return false, nil
	case "gzip", "x-gzip":
		return true, nil
	default:
		return false, Fail(fault.Unsupported, "content encoding %.32q is not supported: send gzip or none", encoding)
	}
}

func readAll(raw *countingReader, zipped bool, limit, announced int64) ([]byte, error) {
	if announced > limit {
		return nil, tooLargeError(limit)
	}
	body := io.LimitReader(raw, limit+1)
	if zipped {
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, bodyError(err)
		}
		body = io.LimitReader(z, limit+1)
	}
	var buf bytes.Buffer
	buf.Grow(int(max(announced, 0)) + bytes.MinRead) // announced is at most the limit
	_, err := buf.ReadFrom(body)
	switch {
	case zipped && int64(buf.Len()) > limit && raw.n <= limit:
		return nil, Fail(fault.TooLarge, "the body unpacks to more than the limit of %d bytes: send less, or split it", limit)
	case int64(buf.Len()) > limit || raw.n > limit:
		return nil, tooLargeError(limit)
	case err != nil:
		return nil, bodyError(err)
	}
	return buf.Bytes(), nil
}

// bodyError says what went wrong while the body came in.
func bodyError(err error) error {
	e := &Error{Status: http.StatusBadRequest, Code: string(fault.Malformed), Message: "the body broke off: send it again", Err: err}
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.Status, e.Code, e.Message = http.StatusRequestTimeout, string(fault.Timeout), "the body came too slowly: it must be here within "+bodyTimeout.String()
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		e.Message = "the body is not valid gzip, as its Content-Encoding says it is"
	}
	return e
}

// swallow discards what is still coming until the reader has seen total bytes.
func swallow(raw *countingReader, total int64) {
	_, _ = io.CopyN(io.Discard, raw, total-raw.n) // an early end is the best that can happen
}

// countingReader counts the bytes that came off the wire.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
