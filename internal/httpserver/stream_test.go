package httpserver_test

import (
	"bytes"
	"context"
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

// One client takes nothing of what it asked for; another, or the same over another
// stream of its connection, gets all.
func TestWhoDoesNotReadIsCutAlone(t *testing.T) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			const frames = 256
			cut := make(chan error, 1)
			stream := func(frame []byte, done func(error)) echo.HandlerFunc {
				return func(c echo.Context) error {
					if err := httpserver.BeginStream(c); err != nil {
						return err
					}
					w := httpserver.NewLaterWriter(c, 100*time.Millisecond)
					return httpserver.Later(c, func(context.Context) {
						var err error
						for i := 0; i < frames && err == nil; i++ {
							err = w.Send(frame)
						}
						done(err)
					})
				}
			}
			b := setup(t, limits(), func(e *echo.Echo) {
				e.GET("/much", stream(bytes.Repeat([]byte("x"), 256<<10), func(err error) { cut <- err }))
				e.GET("/little", stream([]byte("data: x\n\n"), func(error) {}))
			})
			protocols := new(http.Protocols)
			protocols.SetHTTP1(version == "HTTP/1.1")
			protocols.SetUnencryptedHTTP2(version == "HTTP/2.0")
			transport := &http.Transport{Protocols: protocols, DisableCompression: true}
			defer transport.CloseIdleConnections()
			b.client = &http.Client{Transport: transport}
			res, err := b.client.Get("http://" + b.Addr() + "/much")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.Proto != version {
				t.Errorf("spoken is %s", res.Proto)
			}
			if err := <-cut; err == nil {
				t.Error("who took nothing was sent 64 MiB")
			}
			if _, text := b.do(http.MethodGet, "/little", nil); len(text) != frames*len("data: x\n\n") {
				t.Errorf("who reads got %d bytes", len(text))
			}
			if n, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Errorf("%d bytes and a clean end", n)
			}
		})
	}
}
