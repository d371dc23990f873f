package httpserver_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/penstock/penstock/internal/httpserver"
)

// begin answers with the head of a stream, and says who writes the rest.
func begin(c echo.Context) (httpserver.StreamWriter, error) {
	err := httpserver.BeginStream(c)
	return httpserver.NewLaterWriter(c, time.Second), err
}

func TestTheRestOfAnAnswerRunsWhenItsHandlerHasReturned(t *testing.T) {
	var returned atomic.Bool
	b := setup(t, limits(), func(e *echo.Echo) {
		e.GET("/stream/:id", func(c echo.Context) error {
			w, err := begin(c)
			if err != nil {
				return err
			}
			id := c.Param("id")
			return httpserver.Later(c, func(ctx context.Context) {
				if !returned.Load() || ctx.Err() != nil {
					_ = w.Send([]byte("data: too early, or too late\n\n"))
				}
				_ = w.Send([]byte("data: " + id + "\n\n"))
				_ = w.Send([]byte("data: end\n\n"))
			})
		}, func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				defer returned.Store(true)
				return next(c)
			}
		})
	})
	for _, encoding := range []string{"", "gzip"} {
		returned.Store(false)
		res, body := b.do(http.MethodGet, "/stream/17?ticket=secret", nil, "Accept-Encoding", encoding, "X-Request-Id", "req-"+encoding)
		if res.StatusCode != http.StatusOK || body != "data: 17\n\ndata: end\n\n" || res.Header.Get("Content-Encoding") != "" {
			t.Errorf("%d, %q, %v", res.StatusCode, body, res.Header)
		}
	}
	b.stop()
	if err := <-b.result; err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(b.log.String()) {
		if strings.Contains(line, `"route":"/stream/:id"`) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 || !strings.Contains(lines[0], `"status":200,"bytes":21,`) || strings.Contains(lines[0], "aborted") || !strings.Contains(lines[1], `"request_id":"req-gzip"`) {
		t.Errorf("the access log has\n%s", strings.Join(lines, ""))
	}
	const none = "# HELP penstock_http_in_flight_requests Requests being answered, streams included.\n# TYPE penstock_http_in_flight_requests gauge\npenstock_http_in_flight_requests 0\n"
	if err := testutil.GatherAndCompare(b.reg, strings.NewReader(none), "penstock_http_in_flight_requests"); err != nil {
		t.Error(err)
	}
}

func TestAPanicInTheRestCutsTheConnection(t *testing.T) {
	for name, cause := range map[string]any{"of a bug": errors.New("a bug"), "on purpose": http.ErrAbortHandler} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, limits(), func(e *echo.Echo) {
				e.GET("/stream", func(c echo.Context) error {
					w, err := begin(c)
					if err != nil {
						return err
					}
					return httpserver.Later(c, func(context.Context) {
						_ = w.Send([]byte("data: x\n\n"))
						panic(cause)
					})
				})
			})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.Addr()+"/stream", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := b.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("a clean end after %q", body)
			}
			b.stop()
			<-b.result
			log := b.log.String()
			if !strings.Contains(log, `"aborted":true`) || strings.Contains(log, "handler panicked") != (name == "of a bug") {
				t.Errorf("the log has\n%s", log)
			}
		})
	}
}

func TestARequestIsPutBeforeAMiddlewareAgain(t *testing.T) {
	type key struct{}
	let := atomic.Bool{}
	let.Store(true)
	guard := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			known, _ := c.Request().Context().Value(key{}).(string)
			if !let.Load() || c.Param("id") != "17" || c.QueryParam("q") != "a b" || c.Request().Header.Get("Authorization") != "Bearer k" || c.Path() != "/x/:id" {
				return echo.ErrForbidden
			}
			c.SetRequest(c.Request().WithContext(context.WithValue(c.Request().Context(), key{}, known+"in")))
			return next(c)
		}
	}
	said := make(chan string, 1)
	b := setup(t, limits(), func(e *echo.Echo) {
		e.GET("/x/:id", func(c echo.Context) error {
			w, err := begin(c)
			if err != nil {
				return err
			}
			again := httpserver.NewAgain(c, guard)
			return httpserver.Later(c, func(ctx context.Context) {
				first := again.Enter(ctx)
				let.Store(false)
				if second := again.Enter(ctx); first == nil && errors.Is(second, echo.ErrForbidden) {
					said <- "as it should"
				} else {
					said <- "wrong"
				}
				_ = w.Send([]byte("data: x\n\n"))
			})
		}, guard)
	})
	b.do(http.MethodGet, "/x/17?q=a+b", nil, "Authorization", "Bearer k")
	if got := <-said; got != "as it should" {
		t.Error(got)
	}
}

func TestWithoutAServerTheRestRunsAtOnce(t *testing.T) {
	e := echo.New()
	e.GET("/stream", func(c echo.Context) error {
		w, err := begin(c)
		if err != nil {
			return err
		}
		return httpserver.Later(c, func(context.Context) { _ = w.Send([]byte("data: x\n\n")) })
	})
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/stream", nil))
	if got := rec.Body.String(); got != "data: x\n\n" {
		t.Errorf("answered %q", got)
	}
}
