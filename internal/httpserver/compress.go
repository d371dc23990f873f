package httpserver

import (
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"
)

// compress sends answers over 1 KiB as gzip to those who ask for it. Streams
// are left alone: an answer of type text/event-stream, one that is flushed
// before it is 1 KiB long, and a connection that is taken over.
func compress() echo.MiddlewareFunc {
	pool := &sync.Pool{New: func() any { return gzip.NewWriter(nil) }}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			res := c.Response()
			res.Header().Add(echo.HeaderVary, echo.HeaderAcceptEncoding)
			if !acceptsGzip(c.Request().Header.Get(echo.HeaderAcceptEncoding)) || c.Request().Method == http.MethodHead {
				return next(c)
			}
			w := &gzipWriter{ResponseWriter: res.Writer, pool: pool}
			res.Writer = w
			defer func() {
				w.close()
				res.Writer = w.ResponseWriter
			}()
			if err := next(c); err != nil {
				c.Error(err) // here, so that errors are compressed like answers
			}
			return nil
		}
	}
}

// acceptsGzip reads an Accept-Encoding header: gzip or *, not refused by q=0.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		name = strings.TrimSpace(name)
		if !strings.EqualFold(name, "gzip") && name != "*" {
			continue
		}
		_, q, found := strings.Cut(strings.ReplaceAll(params, " ", ""), "q=")
		weight, err := strconv.ParseFloat(q, 64)
		return !found || (err == nil && weight > 0)
	}
	return false
}

// gzipWriter holds the head and the first KiB of an answer back until it knows
// whether to compress. One goroutine uses it, as with any ResponseWriter.
type gzipWriter struct {
	http.ResponseWriter
	pool *sync.Pool

	status  int    // 0 until WriteHeader
	held    []byte // the first bytes, while undecided
	decided bool
	gz      *gzip.Writer // nil: as it is
}

// WriteHeader remembers the status until the decision.
func (w *gzipWriter) WriteHeader(status int) {
	if status < http.StatusOK && status != http.StatusSwitchingProtocols { // 100, 103: more heads follow
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.status != 0 {
		return
	}
	w.status = status
	h := w.Header()
	bodiless := status == http.StatusNoContent || status == http.StatusNotModified || status == http.StatusSwitchingProtocols
	streamed := strings.HasPrefix(h.Get(echo.HeaderContentType), "text/event-stream")
	if bodiless || streamed || h.Get(echo.HeaderContentEncoding) != "" || h.Get("Content-Range") != "" {
		_ = w.decide(false) // nothing is held yet, so nothing is written
	}
}

// Write holds back, compresses or passes on.
func (w *gzipWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.decided {
		return w.pass(p)
	}
	w.held = append(w.held, p...)
	if len(w.held) < compressFrom {
		return len(p), nil
	}
	if err := w.decide(true); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush sends what there is. Whoever flushes a short answer is streaming.
func (w *gzipWriter) Flush() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.decided {
		_ = w.decide(false) // the next Write tells the handler
	}
	if w.gz != nil {
		_ = w.gz.Flush()
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap gives http.ResponseController its way to deadlines and Hijack.
func (w *gzipWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// decide sends the head and the bytes held, compressed from here on or not.
func (w *gzipWriter) decide(zip bool) error {
	w.decided = true
	if zip {
		w.Header().Set(echo.HeaderContentEncoding, "gzip")
		w.Header().Del(echo.HeaderContentLength)
		w.gz, _ = w.pool.Get().(*gzip.Writer)
		w.gz.Reset(w.ResponseWriter)
	}
	w.ResponseWriter.WriteHeader(w.status)
	held := w.held
	w.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := w.pass(held)
	return err
}

func (w *gzipWriter) pass(p []byte) (int, error) {
	if w.gz != nil {
		return w.gz.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// close sends the rest. An answer that never began is left alone: the handler
// has taken the connection over, or panicked.
func (w *gzipWriter) close() {
	if !w.decided && w.status != 0 {
		_ = w.decide(false)
	}
	if w.gz != nil {
		_ = w.gz.Close()
		w.gz.Reset(nil)
		w.pool.Put(w.gz)
		w.gz = nil
	}
}
