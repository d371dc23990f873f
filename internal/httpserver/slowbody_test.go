package httpserver_test

import (
	"net"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
)

// pipeWriter is a recorder whose request body comes through conn.
type pipeWriter struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (w pipeWriter) SetReadDeadline(t time.Time) error { return w.conn.SetReadDeadline(t) }

func TestABodyThatTricklesInIsGivenUpAfterHalfAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		theirs, ours := net.Pipe()
		defer ours.Close()
		done := make(chan struct{})
		go func() { // a byte a second; ends when its end is closed
			defer close(done)
			for {
				if _, err := theirs.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		defer func() { theirs.Close(); <-done }()
		start := time.Now()
		req := httptest.NewRequest("POST", "/", nil)
		req.Body = ours
		_, err := httpserver.ReadBody(echo.New().NewContext(req, pipeWriter{httptest.NewRecorder(), ours}), 1<<20)
		if e := httpserver.AsError(err); err == nil || e.Status != 408 || e.Code != "timeout" {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("gave up after %v, want 30 s", took)
		}
	})
}
