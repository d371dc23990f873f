package httpserver_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/httpserver"
)

// A client asks again on the connection that a stream was on, long after it.
func TestTheDeadlineOfAStreamEndsWithIt(t *testing.T) {
	const patience = 20 * time.Millisecond
	s := httpserver.New(httpserver.DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	s.Echo().GET("/stream", func(c echo.Context) error {
		if err := httpserver.BeginStream(c); err != nil {
			return err
		}
		return httpserver.NewStreamWriter(c, patience).Send([]byte("data: x\n\n"))
	})
	s.Echo().GET("/plain", func(c echo.Context) error { return c.String(http.StatusOK, "answer") })
	web := httptest.NewServer(s.Echo())
	defer web.Close()
	get := func(path string) (body string, reused bool) {
		t.Helper()
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, web.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := web.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw), reused
	}
	if body, _ := get("/stream"); body != "data: x\n\n" {
		t.Errorf("streamed %q", body)
	}
	<-time.After(3 * patience)
	if body, reused := get("/plain"); body != "answer" || !reused {
		t.Errorf("answered %q, on the same connection %t", body, reused)
	}
}
