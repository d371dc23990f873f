package ws_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/producer/ws"
	"github.com/penstock/penstock/schema/spec"
)

// pipes is a listener whose connections lie in memory, so that a bubble's clock
// can run while both ends wait.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	p.conns <- far
	return near, nil
}

// counted counts how often it is asked.
type counted struct{ asked atomic.Int64 }

func (c *counted) Authenticate(ctx context.Context, bearer string) (auth.Principal, error) {
	c.asked.Add(1)
	return auth.Dev{}.Authenticate(ctx, bearer)
}

// hall serves sockets that watch nothing, in a bubble.
type hall struct {
	t    *testing.T
	api  *ws.API
	keys *counted
	http *http.Client
	stop func()
}

func openHall(t *testing.T, p ws.Params) *hall {
	t.Helper()
	h := &hall{t: t, keys: &counted{}}
	quiet, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	var err error
	h.api, err = ws.New(ws.Deps{Follower: follow.New(nil, nil, follow.Params{}), Auth: h.keys, Schemas: spec.FS, Log: quiet, Registry: reg}, p)
	if err != nil {
		t.Fatal(err)
	}
	server := httpserver.New(httpserver.DefaultConfig(), quiet, reg)
	h.api.Register(server.Echo())
	ln := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: server.Echo()}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	transport := &http.Transport{DialContext: ln.dial}
	h.http = &http.Client{Transport: transport}
	h.stop = func() { transport.CloseIdleConnections(); _ = srv.Close(); wg.Wait() }
	return h
}

// ending is what a client saw of the end of its socket.
type ending struct {
	after  time.Duration
	code   websocket.StatusCode
	last   string
	pulses int
}

// listen opens a socket and reads it to its end.
func (h *hall) listen(wg *sync.WaitGroup, out *ending) {
	h.t.Helper()
	conn, _, err := websocket.Dial(h.t.Context(), "http://hall/v1/ws", &websocket.DialOptions{
		HTTPClient:     h.http,
		OnPingReceived: func(context.Context, []byte) bool { out.pulses++; return true },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	began := time.Now()
	wg.Go(func() {
		for {
			_, text, err := conn.Read(h.t.Context())
			if err != nil {
				out.after, out.code = time.Since(began), websocket.CloseStatus(err)
				return
			}
			out.last = string(text)
		}
	})
}

func TestADrainIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHall(t, ws.Params{})
		ends := make([]ending, 50)
		var wg sync.WaitGroup
		for i := range ends {
			h.listen(&wg, &ends[i])
		}
		began := time.Now()
		h.api.Drain()
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("the drain took %s", took)
		}
		wg.Wait()
		h.stop()
		for _, e := range ends {
			if e.code != websocket.StatusServiceRestart || !strings.Contains(e.last, `"op":"reconnect"`) {
				t.Errorf("a client saw %+v", e)
			}
		}
		byTime := func(a, b ending) int { return int(a.after - b.after) }
		if first, last := slices.MinFunc(ends, byTime), slices.MaxFunc(ends, byTime); first.after > 5*time.Second || last.after < 15*time.Second {
			t.Errorf("50 clients were sent away between %s and %s", first.after, last.after)
		}
	})
}

func TestAQuietSocketIsKeptForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHall(t, ws.Params{})
		var end ending
		var wg sync.WaitGroup
		h.listen(&wg, &end)
		wg.Wait()
		h.stop()
		if end.after < 48*time.Minute || end.after > 72*time.Minute+time.Second || end.code != websocket.StatusServiceRestart {
			t.Errorf("it ended with %+v", end)
		}
		if want := int(end.after / (15 * time.Second)); end.pulses < want-1 || end.pulses > want {
			t.Errorf("%d pings in %s", end.pulses, end.after)
		}
		if want, got := int64(end.after/time.Minute), h.keys.asked.Load()-1; got < want-1 || got > want {
			t.Errorf("its key was checked %d times in %s", got, end.after)
		}
	})
}
