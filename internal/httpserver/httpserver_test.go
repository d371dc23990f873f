package httpserver_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lockedBuffer is a log that a server writes while a test reads.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// bundle is a running server and a client of it.
type bundle struct {
	*httpserver.Server
	t      *testing.T
	reg    *prometheus.Registry
	log    *lockedBuffer
	client *http.Client
	stop   context.CancelFunc
	result chan error // what Serve returned
}

// setup serves the routes on a free port until the test ends.
func setup(t *testing.T, cfg httpserver.Config, routes func(*echo.Echo)) *bundle {
	t.Helper()
	cfg.Listen, cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	b := &bundle{t: t, reg: prometheus.NewRegistry(), log: &lockedBuffer{}, result: make(chan error, 1)}
	b.Server = httpserver.New(cfg, slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})), b.reg)
	if routes != nil {
		routes(b.Echo())
	}
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	b.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	ctx, cancel := context.WithCancel(t.Context())
	b.stop = cancel
	var wg sync.WaitGroup
	wg.Go(func() { b.result <- b.Serve(ctx) })
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		wg.Wait()
	})
	return b
}

func limits() httpserver.Config {
	cfg := httpserver.DefaultConfig()
	cfg.BodyLimit = 1 << 10
	cfg.DrainGrace = 5 * time.Second
	return cfg
}

// do sends a request and returns the answer with its whole body.
func (b *bundle) do(method, path string, body io.Reader, header ...string) (*http.Response, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://"+b.Addr()+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := b.client.Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatalf("%s %s: read answer: %v", method, path, err)
	}
	return res, string(text)
}

func envelope(t *testing.T, text string) api.Envelope {
	t.Helper()
	var e api.Envelope
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatalf("not an envelope: %v in %q", err, text)
	}
	return e
}

func TestEnvelopes(t *testing.T) {
	t.Parallel()
	b := setup(t, limits(), func(e *echo.Echo) {
		e.GET("/ok", func(c echo.Context) error {
			return httpserver.OK(c, http.StatusAccepted, map[string]string{"text": "a<b & c>d"})
		})
		e.GET("/busy", func(echo.Context) error {
			return &httpserver.Error{Status: 503, Code: "unavailable", Message: "kafka is slow: try again", RetryAfter: 1500 * time.Millisecond}
		})
		e.GET("/bad", func(echo.Context) error {
			e := httpserver.Fail(fault.Malformed, "temperature is above 2: send less")
			e.Param = "params.temperature"
			return fmt.Errorf("decode: %w", e)
		})
		e.GET("/fault", func(echo.Context) error { return fault.New(fault.TooLarge, "the prompt is too long") })
		e.GET("/bug", func(echo.Context) error { return errors.New("secret detail") })
		e.GET("/panic", func(echo.Context) error { panic("secret detail") })
	})
	for _, tc := range []struct {
		name, method, path string
		status             int
		code               fault.Code
		message            string
	}{
		{"an error says cause and cure", "GET", "/busy", 503, "unavailable", "kafka is slow: try again"},
		{"a wrapped error keeps its place", "GET", "/bad", 400, "malformed", "temperature is above 2: send less"},
		{"a fault has its status", "GET", "/fault", 413, "too_large", "the prompt is too long"},
		{"an unclassified error tells nothing", "GET", "/bug", 500, "internal", "our fault"},
		{"a panic tells nothing", "GET", "/panic", 500, "internal", "our fault"},
		{"an unknown route", "GET", "/nope?ticket=x", 404, "not_found", "no such route"},
		{"a known route with another method", "DELETE", "/ok", 405, "method_not_allowed", "does not take this method"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			res, text := b.do(tc.method, tc.path, nil)
			e := envelope(t, text)
			if res.StatusCode != tc.status || e.Code != tc.status || e.Error == nil || e.Error.Type != tc.code || !strings.Contains(e.Message, tc.message) {
				t.Errorf("got %d %s", res.StatusCode, text)
			}
			if string(e.Data) != "null" || strings.Contains(text, "secret") || e.RequestID == "" || e.RequestID != res.Header.Get("X-Request-Id") {
				t.Errorf("got %s with X-Request-Id %q", text, res.Header.Get("X-Request-Id"))
			}
			if tc.path == "/busy" && res.Header.Get("Retry-After") != "2" {
				t.Errorf("Retry-After is %q, want 1.5 s rounded up", res.Header.Get("Retry-After"))
			}
			if tc.path == "/bad" && e.Error.Param != "params.temperature" {
				t.Errorf("param is %q", e.Error.Param)
			}
			if tc.status == 405 && !strings.Contains(res.Header.Get("Allow"), "GET") {
				t.Errorf("Allow is %q", res.Header.Get("Allow"))
			}
		})
	}
	t.Run("a success is not escaped", func(t *testing.T) {
		t.Parallel()
		res, text := b.do("GET", "/ok", nil)
		e := envelope(t, text)
		if res.StatusCode != 202 || e.Code != 0 || e.Message != "ok" || !strings.Contains(text, `"a<b & c>d"`) || strings.Contains(text, `"error"`) {
			t.Errorf("got %d %s", res.StatusCode, text)
		}
	})
}

func TestAGroupMayFormatItsErrors(t *testing.T) {
	t.Parallel()
	b := setup(t, limits(), func(e *echo.Echo) {
		g := e.Group("/openai", httpserver.ErrorFormat(func(c echo.Context, e *httpserver.Error) error {
			return c.JSON(e.Status, map[string]any{"error": map[string]any{"code": e.Code}})
		}))
		g.POST("/chat", func(echo.Context) error { return httpserver.Fail(fault.NotFound, "no such model") })
	})
	res, text := b.do("POST", "/openai/chat", nil)
	if res.StatusCode != 404 || strings.TrimSpace(text) != `{"error":{"code":"not_found"}}` {
		t.Errorf("got %d %s", res.StatusCode, text)
	}
	if res, text = b.do("GET", "/openai/none", nil); res.StatusCode != 404 || !strings.Contains(text, `"code":"not_found"`) {
		t.Errorf("an unknown route of the group: got %d %s", res.StatusCode, text)
	}
}

func TestRequestIDsAndTraces(t *testing.T) {
	t.Parallel()
	b := setup(t, limits(), func(e *echo.Echo) {
		e.GET("/tasks/:id", func(c echo.Context) error {
			httpserver.AddLogAttrs(c, slog.String("task_id", c.Param("id")))
			return c.NoContent(204)
		})
	})
	for sent, kept := range map[string]bool{"req-42": true, "": false, "two words": false, "tab\tbed": false, "naïve": false, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false} {
		res, _ := b.do("GET", "/tasks/t1?ticket=hunter2", nil, "X-Request-Id", sent)
		if got := res.Header.Get("X-Request-Id"); (got == sent) != kept || got == "" {
			t.Errorf("sent %q, got %q", sent, got)
		}
	}
	b.do("GET", "/tasks/t9?ticket=hunter2", nil, "X-Request-Id", "traced", "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	b.do("GET", "/nope/hunter2", nil)
	b.stop()
	if err := <-b.result; err != nil {
		t.Error(err)
	}
	for _, want := range []string{`"request_id":"traced"`, `"route":"/tasks/:id"`, `"task_id":"t9"`, `"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"`, `"route":"unmatched"`, `"status":204`} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("the access log lacks %s", want)
		}
	}
	if strings.Contains(b.log.String(), "hunter2") {
		t.Error("the access log shows a query or an invented path")
	}
}

func zip(t *testing.T, p []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestReadBody(t *testing.T) {
	t.Parallel()
	b := setup(t, limits(), func(e *echo.Echo) {
		e.POST("/", func(c echo.Context) error {
			body, err := httpserver.ReadBody(c, 0)
			if err != nil {
				return err
			}
			return c.String(200, fmt.Sprint(len(body)))
		})
	})
	const limit = 1 << 10
	full := bytes.Repeat([]byte("x"), limit)
	random := make([]byte, 3*limit) // does not compress
	for i := range random {
		random[i] = byte(i*i*31 + i>>3*17)
	}
	for _, tc := range []struct {
		name     string
		body     io.Reader
		encoding string
		status   int
		want     string
	}{
		{"an empty body", nil, "", 200, "0"},
		{"a body of the limit", bytes.NewReader(full), "", 200, "1024"},
		{"one byte over the limit", bytes.NewReader(append(full, 'x')), "", 413, "too_large"},
		{"one byte over the limit of unknown length", io.MultiReader(bytes.NewReader(full), strings.NewReader("x")), "", 413, "too_large"},
		{"far over the limit", io.LimitReader(zeros{}, 8<<20), "", 413, "too_large"},
		{"gzip", bytes.NewReader(zip(t, full)), "gzip", 200, "1024"},
		{"gzip that decodes to one byte over", bytes.NewReader(zip(t, append(full, 'x'))), "GZIP", 413, "too_large"},
		{"a gzip bomb", bytes.NewReader(zip(t, make([]byte, 64<<20))), "gzip", 413, "too_large"},
		{"gzip that is over the limit as sent", bytes.NewReader(zip(t, random)), "gzip", 413, "too_large"},
		{"gzip that is none", strings.NewReader("hello there, no gzip"), "gzip", 400, "not valid gzip"},
		{"gzip that is damaged", bytes.NewReader(append(zip(t, full)[:14], 0xff, 0xff, 0xff, 0xff, 0xff)), "gzip", 400, "malformed"},
		{"gzip that breaks off", bytes.NewReader(zip(t, full)[:15]), "gzip", 400, "broke off"},
		{"another encoding", strings.NewReader("x"), "br", 415, "unsupported_media_type"},
		{"gzip twice", strings.NewReader("x"), "gzip, gzip", 415, "unsupported_media_type"},
		{"identity", strings.NewReader("x"), "identity", 200, "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := *b
			b.t = t
			res, text := b.do("POST", "/", tc.body, "Content-Encoding", tc.encoding)
			if res.StatusCode != tc.status || !strings.Contains(text, tc.want) {
				t.Errorf("got %d %s", res.StatusCode, text)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// A client that writes its whole body before it reads sees the answer only if
// the server swallows what is still coming.
func TestAnOversizeBodyGetsItsAnswerNotAReset(t *testing.T) {
	t.Parallel()
	cfg := limits()
	cfg.BodyLimit = 1 << 20
	b := setup(t, cfg, func(e *echo.Echo) {
		e.POST("/", func(c echo.Context) error { _, err := httpserver.ReadBody(c, 0); return err })
	})
	for range 5 {
		conn, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		const size = 2 << 20
		_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
		if err == nil {
			_, err = conn.Write(make([]byte, size))
		}
		if err != nil {
			t.Fatalf("the connection was reset while the body was sent: %v", err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != 413 {
			t.Fatalf("got %v, %v; want a 413", res, err)
		}
		res.Body.Close()
		conn.Close()
	}
}

func TestCompression(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("penstock ", 500)
	flushed := make(chan struct{})
	b := setup(t, limits(), func(e *echo.Echo) {
		e.GET("/long", func(c echo.Context) error { return c.String(200, long) })
		e.GET("/short", func(c echo.Context) error { return c.String(200, "short") })
		e.GET("/error", func(echo.Context) error { return httpserver.Fail(fault.Malformed, "%s", long) })
		e.GET("/none", func(c echo.Context) error { return c.NoContent(204) })
		e.GET("/panic", func(c echo.Context) error { panic("boom") })
		e.GET("/sse", func(c echo.Context) error {
			c.Response().Header().Set("Content-Type", "text/event-stream")
			_, err := io.WriteString(c.Response(), long)
			return err
		})
		e.GET("/stream", func(c echo.Context) error {
			_, _ = io.WriteString(c.Response(), "first")
			c.Response().Flush()
			<-flushed
			_, err := io.WriteString(c.Response(), long)
			return err
		})
	})
	for _, tc := range []struct {
		name, path, accept string
		status             int
		zipped             bool
		want               string
	}{
		{"a long answer is compressed when asked for", "/long", "br, gzip", 200, true, long},
		{"a long answer is left alone when not asked for", "/long", "", 200, false, long},
		{"gzip;q=0 is a refusal", "/long", "gzip;q=0, br", 200, false, long},
		{"a short answer is left alone", "/short", "gzip", 200, false, "short"},
		{"a long error is compressed too", "/error", "gzip", 400, true, long},
		{"an empty answer stays empty", "/none", "gzip", 204, false, ""},
		{"a panic is answered", "/panic", "gzip", 500, false, "our fault"},
		{"server-sent events are left alone", "/sse", "gzip", 200, false, long},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := *b
			b.t = t
			res, text := b.do("GET", tc.path, nil, "Accept-Encoding", tc.accept)
			if zipped := res.Header.Get("Content-Encoding") == "gzip"; zipped != tc.zipped || res.StatusCode != tc.status {
				t.Fatalf("status %d, compressed %v", res.StatusCode, zipped)
			}
			if tc.zipped {
				z, err := gzip.NewReader(strings.NewReader(text))
				if err != nil {
					t.Fatal(err)
				}
				plain, err := io.ReadAll(z)
				if err != nil {
					t.Fatal(err)
				}
				text = string(plain)
			}
			if !strings.Contains(text, tc.want) {
				t.Errorf("got %.80q", text)
			}
		})
	}
	t.Run("a flushed answer arrives at once", func(t *testing.T) {
		t.Parallel()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+b.Addr()+"/stream", nil)
		req.Header.Set("Accept-Encoding", "gzip")
		res, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		first := make([]byte, 5)
		if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first" {
			t.Errorf("got %q, %v before the handler went on", first, err)
		}
		close(flushed)
		if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != long {
			t.Errorf("got %d bytes, %v", len(rest), err)
		}
	})
}

func TestAPanicInMidAnswerCutsTheConnection(t *testing.T) {
	t.Parallel()
	b := setup(t, limits(), func(e *echo.Echo) {
		e.GET("/", func(c echo.Context) error {
			_, _ = io.WriteString(c.Response(), "half")
			c.Response().Flush()
			panic("boom")
		})
	})
	res, err := b.client.Get("http://" + b.Addr() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("half an answer ended cleanly: %q", text)
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	t.Parallel()
	b := setup(t, limits(), func(e *echo.Echo) {
		e.POST("/", func(c echo.Context) error {
			body, err := httpserver.ReadBody(c, 0)
			if err != nil {
				return err
			}
			return c.String(200, fmt.Sprintf("%s %d", c.Request().Proto, len(body)))
		})
	})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	b.client = &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	if res, text := b.do("POST", "/", strings.NewReader("four")); res.StatusCode != 200 || text != "HTTP/2.0 4" {
		t.Errorf("got %d %s", res.StatusCode, text)
	}
	if res, text := b.do("POST", "/", strings.NewReader(strings.Repeat("x", 1025))); res.StatusCode != 413 {
		t.Errorf("got %d %s", res.StatusCode, text)
	}
}

func TestHealthFollowsReadiness(t *testing.T) {
	t.Parallel()
	b := setup(t, limits(), nil)
	b.Readiness().Set("kafka", errors.New("dial 10.1.2.3: refused"))
	b.Readiness().Set("redis", nil)
	get := func(addr, path string) (int, string) {
		t.Helper()
		res, err := b.client.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/startupz": 503, "/v1/health": 503} {
		status, text := get(b.Addr(), path)
		if status != want || strings.Contains(text, "10.1.2.3") {
			t.Errorf("%s: got %d %s", path, status, text)
		}
	}
	if _, text := get(b.Addr(), "/v1/health"); !strings.Contains(text, `"kafka":"failing"`) || !strings.Contains(text, `"redis":"ok"`) {
		t.Errorf("got %s", text)
	}
	if status, text := get(b.AdminAddr(), "/readyz"); status != 503 || !strings.Contains(text, "10.1.2.3") {
		t.Errorf("the admin listener hides the reason: %d %s", status, text)
	}
	b.Readiness().Set("kafka", nil)
	for _, path := range []string{"/readyz", "/startupz", "/v1/health"} {
		if status, text := get(b.Addr(), path); status != 200 {
			t.Errorf("%s: got %d %s", path, status, text)
		}
	}
	if status, text := get(b.AdminAddr(), "/metrics"); status != 200 || !strings.Contains(text, `penstock_http_requests_total{method="GET",route="/readyz",status="5xx"} 1`) {
		t.Errorf("metrics: got %d %s", status, text)
	}
	if status, _ := get(b.AdminAddr(), "/debug/pprof/"); status != 200 {
		t.Errorf("pprof: got %d", status)
	}
	if status, _ := get(b.Addr(), "/debug/pprof/"); status != 404 {
		t.Errorf("pprof is on the API listener: got %d", status)
	}
}

func TestMetricsKnowOnlyTemplates(t *testing.T) {
	t.Parallel()
	b := setup(t, limits(), func(e *echo.Echo) {
		e.GET("/tasks/:id", func(c echo.Context) error { return c.NoContent(204) })
	})
	for i := range 20 {
		b.do("GET", fmt.Sprintf("/tasks/%d", i), nil)
		b.do("GET", fmt.Sprintf("/invented/%d", i), nil)
		b.do(fmt.Sprintf("VERB%d", i), "/tasks/1", nil)
	}
	if n, err := testutil.GatherAndCount(b.reg, "penstock_http_requests_total"); err != nil || n != 3 {
		t.Errorf("20 requests of 3 sorts made %d series, %v", n, err)
	}
}

func TestForwardingHeadersAreBelievedOnlyFromTrustedProxies(t *testing.T) {
	t.Parallel()
	who := func(e *echo.Echo) {
		e.GET("/", func(c echo.Context) error { return c.String(200, c.RealIP()+" "+c.Scheme()) })
	}
	for _, tc := range []struct {
		trusted []string
		want    string
	}{{nil, "127.0.0.1 http"}, {[]string{"10.0.0.0/8"}, "127.0.0.1 http"}, {[]string{"127.0.0.1"}, "203.0.113.9 https"}} {
		cfg := limits()
		cfg.TrustedProxies = tc.trusted
		b := setup(t, cfg, who)
		if _, got := b.do("GET", "/", nil, "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "https", "X-Real-IP", "203.0.113.8"); got != tc.want {
			t.Errorf("trusting %v: got %q, want %q", tc.trusted, got, tc.want)
		}
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	t.Run("lets streams say goodbye and finishes what is in flight", func(t *testing.T) {
		t.Parallel()
		goodbye, entered := make(chan struct{}), make(chan struct{})
		b := setup(t, limits(), func(e *echo.Echo) {
			e.GET("/sse", func(c echo.Context) error {
				close(entered)
				c.Response().Header().Set("Content-Type", "text/event-stream")
				c.Response().Flush()
				<-goodbye
				_, err := io.WriteString(c.Response(), "event: reconnect\n\n")
				return err
			})
		})
		b.OnDrain(func() {
			if b.Readiness().Err() == nil {
				t.Error("still ready while draining")
			}
			close(goodbye)
		})
		res, err := b.client.Get("http://" + b.Addr() + "/sse")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		<-entered
		b.stop()
		if text, err := io.ReadAll(res.Body); err != nil || string(text) != "event: reconnect\n\n" {
			t.Errorf("got %q, %v", text, err)
		}
		if err := <-b.result; err != nil {
			t.Error(err)
		}
		if _, err := net.Dial("tcp", b.Addr()); err == nil {
			t.Error("the listener is still open")
		}
	})
	t.Run("cuts what outlives the grace and says so", func(t *testing.T) {
		t.Parallel()
		cfg := limits()
		cfg.DrainGrace = 20 * time.Millisecond
		cut := make(chan struct{})
		b := setup(t, cfg, func(e *echo.Echo) {
			e.GET("/", func(c echo.Context) error {
				c.Response().Flush()
				<-c.Request().Context().Done()
				close(cut)
				return nil
			})
		})
		res, err := b.client.Get("http://" + b.Addr() + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b.stop()
		if err := <-b.result; err == nil || !strings.Contains(err.Error(), "cut after 20ms") {
			t.Errorf("got %v", err)
		}
		<-cut
	})
}

func TestListenExplainsABadConfiguration(t *testing.T) {
	t.Parallel()
	cfg := httpserver.Config{Listen: "8080", TrustedProxies: []string{"everyone"}, DrainGrace: -1, AdminListen: "x"}
	err := httpserver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry()).Listen()
	for _, want := range []string{"listen: want host:port", "trusted_proxies", "body_limit", "drain_grace", "admin_listen"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing from %v", want, err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg = httpserver.DefaultConfig()
	cfg.Listen, cfg.AdminListen = "127.0.0.1:0", ln.Addr().String()
	s := httpserver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := s.Listen(); err == nil || s.Addr() != "" {
		t.Errorf("half a server listens: %v on %q", err, s.Addr())
	}
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	reader, key := auth.GenerateKey("acme", []string{auth.ScopeRead}, time.Time{})
	keys, err := auth.NewKeys([]auth.Key{key})
	if err != nil {
		t.Fatal(err)
	}
	tenant := func(c echo.Context) error { return c.String(200, httpserver.Principal(c).Tenant) }
	b := setup(t, limits(), func(e *echo.Echo) {
		e.GET("/read", tenant, httpserver.Authenticate(keys, auth.ScopeRead))
		e.GET("/admin", tenant, httpserver.Authenticate(keys, auth.ScopeRead, auth.ScopeAdmin))
		e.GET("/dev", tenant, httpserver.Authenticate(auth.Dev{}, auth.ScopeAdmin))
		e.GET("/forgotten", tenant)
	})
	for _, tc := range []struct {
		path, authorization string
		status              int
		want                string
	}{
		{"/read", "Bearer " + reader, 200, "acme"},
		{"/read", "bearer  " + reader, 200, "acme"},
		{"/read", "", 401, "unauthorized"},
		{"/read", "Bearer wrong", 401, "unauthorized"},
		{"/read", "Basic " + reader, 401, "unauthorized"},
		{"/admin", "Bearer " + reader, 403, "forbidden"},
		{"/dev", "", 200, "dev"},
		{"/forgotten", "Bearer " + reader, 500, "internal"},
	} {
		res, text := b.do("GET", tc.path, nil, "Authorization", tc.authorization)
		if res.StatusCode != tc.status || !strings.Contains(text, tc.want) {
			t.Errorf("%s with %q: got %d %s", tc.path, tc.authorization, res.StatusCode, text)
		}
		if (res.Header.Get("WWW-Authenticate") != "") != (res.StatusCode == 401) {
			t.Errorf("%d with WWW-Authenticate %q", res.StatusCode, res.Header.Get("WWW-Authenticate"))
		}
	}
	if strings.Contains(b.log.String(), reader) {
		t.Error("a key is in the log")
	}
}
