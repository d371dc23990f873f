package httpserver_test

import (
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
)

func upload(t *testing.T, body io.Reader, limit int64, headers ...string) ([]byte, error) {
	t.Helper()
	req := httptest.NewRequest("POST", "/", body)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	u, err := httpserver.OpenUpload(echo.New().NewContext(req, httptest.NewRecorder()), limit)
	if err != nil {
		return nil, err
	}
	defer u.Close()
	return io.ReadAll(u)
}

func TestAnUploadIsReadAsItComes(t *testing.T) {
	for name, c := range map[string]struct {
		body    io.Reader
		headers []string
		status  int
	}{
		"at the limit":             {strings.NewReader("12345678"), nil, 0},
		"over it, and says so":     {strings.NewReader("123456789"), nil, 413},
		"over it, and says not":    {io.MultiReader(strings.NewReader("123456789")), nil, 413},
		"with an encoding":         {strings.NewReader("1"), []string{"Content-Encoding", "gzip"}, 415},
		"cut short":                {io.MultiReader(strings.NewReader("1"), iotest.ErrReader(io.ErrUnexpectedEOF)), nil, 400},
		"with an encoding of none": {strings.NewReader("12345678"), []string{"Content-Encoding", "identity"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := upload(t, c.body, 8, c.headers...)
			if c.status == 0 {
				if err != nil || string(got) != "12345678" {
					t.Errorf("%q, %v", got, err)
				}
				return
			}
			var e *httpserver.Error
			if !errors.As(err, &e) || e.Status != c.status {
				t.Errorf("%v, want %d", err, c.status)
			}
		})
	}
}

// A steady upload may take as long as it needs; one that trickles may not.
func TestAnUploadThatIsTooSlowIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		piece  int
		pause  time.Duration
		pieces int
		whole  bool
	}{
		"slow and steady": {128 << 10, time.Second, 300, true},
		"a trickle":       {1 << 10, time.Second, 300, false},
		"a long pause":    {1 << 20, 31 * time.Second, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				theirs, ours := net.Pipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer theirs.Close()
					for range c.pieces {
						if _, err := theirs.Write(make([]byte, c.piece)); err != nil {
							return
						}
						time.Sleep(c.pause)
					}
				}()
				defer func() { ours.Close(); <-done }()
				req := httptest.NewRequest("POST", "/", nil)
				req.Body, req.ContentLength = ours, -1
				u, err := httpserver.OpenUpload(echo.New().NewContext(req, pipeWriter{httptest.NewRecorder(), ours}), 1<<30)
				if err != nil {
					t.Fatal(err)
				}
				n, err := io.Copy(io.Discard, u)
				if c.whole && (err != nil || n != int64(c.piece*c.pieces)) {
					t.Errorf("%d bytes, %v", n, err)
				}
				if e := httpserver.AsError(err); !c.whole && (err == nil || e.Status != 408) {
					t.Errorf("%d bytes, %v; want 408", n, err)
				}
			})
		})
	}
}
