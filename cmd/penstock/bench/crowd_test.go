package bench

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/cmd/penstock/bench/bare"
)

func TestReadStamps(t *testing.T) {
	at := time.UnixMicro(1_763_740_000_123_456)
	ours := "id: 5-1\nevent: delta\ndata: {\"id\":\"5-1\",\"type\":\"delta\",\"task_id\":\"task_x\",\"at\":\"2026-11-21T17:00:00Z\",\"text\":\"1763740000123456 \"}\n\n"
	stream := "event: queued\ndata: {\"type\":\"queued\"}\n\n: ping\n\n" + ours + string(bare.Frame(nil, at)) + `data: {"text":"no stamp "}` + "\n"
	var heard []time.Time
	err := readStamps(strings.NewReader(stream), func(t time.Time) { heard = append(heard, t) })
	if !errors.Is(err, io.EOF) {
		t.Errorf("it ends with %v", err)
	}
	if len(heard) != 2 || !heard[0].Equal(at) || !heard[1].Equal(at) {
		t.Errorf("heard %v, want twice %s", heard, at)
	}
}

func TestEnoughFiles(t *testing.T) {
	if err := enoughFiles(1); err != nil {
		t.Error(err)
	}
	if err := enoughFiles(math.MaxInt32); err != nil && !strings.Contains(err.Error(), "ulimit") {
		t.Errorf("%v does not say what to set", err)
	}
}

// inside is the bare server as a venue, in this process.
type inside struct{ url string }

func (v inside) where(n int) (int, []string) {
	urls := make([]string, n)
	for i := range urls {
		urls[i] = v.url + "/events"
	}
	return os.Getpid(), urls
}

func (inside) begin(context.Context) error { return nil }

func (v inside) collect(ctx context.Context) error {
	return bareVenue{&bareChild{url: v.url}}.collect(ctx)
}

func (v inside) emit(ctx context.Context, rate float64, length time.Duration) (int, Result, error) {
	return bareVenue{&bareChild{url: v.url}}.emit(ctx, rate, length)
}

// told is inside with events that come over HTTP.
type told struct{ inside }

func (v told) emit(ctx context.Context, rate float64, length time.Duration) (int, Result, error) {
	return toldVenue{bareVenue{&bareChild{url: v.url}}}.emit(ctx, rate, length/50)
}

// fed is inside with events that come from Redis.
type fed struct {
	inside
	rdb redis.UniversalClient
}

func (v fed) emit(ctx context.Context, rate float64, length time.Duration) (int, Result, error) {
	return fedVenue{rdb: v.rdb}.emit(ctx, rate, length/50)
}

// losing claims one more event than there were.
type losing struct{ inside }

func (v losing) emit(ctx context.Context, rate float64, length time.Duration) (int, Result, error) {
	n, writes, err := v.inside.emit(ctx, rate, length)
	return n + 1, writes, err
}

// serveBare serves the bare server; with a rdb, one that it feeds.
func serveBare(t *testing.T, rdb redis.UniversalClient) inside {
	t.Helper()
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("no /proc here")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	events := &bare.Events{Plan: func(rate float64, length time.Duration) []time.Duration { return Poisson(rate, length/50, 1) }}
	var g errgroup.Group
	g.Go(func() error { return events.Serve(ctx, ln) })
	if rdb != nil {
		g.Go(func() error { return events.Feed(ctx, rdb) })
	}
	t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return inside{url: "http://" + ln.Addr().String()}
}

func TestCrowd(t *testing.T) {
	c := Crowd{Streams: 30, Rate: 2000, Length: time.Second}
	heard := func(t *testing.T, v venue, protocol string) {
		t.Helper()
		out, err := c.side(t.Context(), v, protocol)
		if err != nil {
			t.Fatal(err)
		}
		if out.Delivery.Calls == 0 {
			t.Error("no event is counted")
		}
		if p99 := out.Delivery.Quantile(99); p99 <= 0 || p99 > 5*time.Second {
			t.Errorf("p99 is %s", p99)
		}
	}
	for _, protocol := range []string{overHTTP1, overH2C} {
		t.Run("every event is heard over "+protocol, func(t *testing.T) { heard(t, serveBare(t, nil), protocol) })
		t.Run("and those that are published over HTTP, over "+protocol, func(t *testing.T) { heard(t, told{serveBare(t, nil)}, protocol) })
		t.Run("and those from Redis over "+protocol, func(t *testing.T) {
			rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
			t.Cleanup(func() { _ = rdb.Close() })
			heard(t, fed{serveBare(t, rdb), rdb}, protocol)
		})
	}
	t.Run("one that is not there is not a stream", func(t *testing.T) {
		v := serveBare(t, nil)
		a := newAudience(overHTTP1)
		defer a.close()
		if err := a.open(t.Context(), []string{v.url + "/nothing"}); err == nil {
			t.Error("it is open")
		}
	})
}

func TestAnEventThatDoesNotComeIsAnError(t *testing.T) {
	t.Parallel() // it waits for as long as an event may take
	_, err := Crowd{Streams: 2, Rate: 2000, Length: time.Second}.side(t.Context(), losing{serveBare(t, nil)}, overHTTP1)
	if err == nil || !strings.Contains(err.Error(), "were written") {
		t.Errorf("the error is %v", err)
	}
}

func TestCrowdTable(t *testing.T) {
	side := func(kib float64, took time.Duration) CrowdSide {
		h := newTally()
		h.add(took, nil)
		return CrowdSide{Protocol: overHTTP1, PerHead: kib * 1024, Delivery: merge([]*tally{h}, 0)}
	}
	var out strings.Builder
	ours := side(30, 64*time.Millisecond)
	ours.Write = side(0, 16*time.Millisecond).Delivery
	r := StreamsReport{Crowds: []CrowdSides{{Ours: ours, Bare: side(25, 32*time.Millisecond), Told: side(25, 50*time.Millisecond), Fed: side(26, 64*time.Millisecond)}}}
	if err := r.table(&out); err != nil {
		t.Fatal(err)
	}
	flat := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"memory of an idle stream, HTTP/1.1 30.0 KiB 25.0 KiB 1.20 1.30 reached",
		"delivery of an event, p99, HTTP/1.1 64ms 32ms 2.00 1.50 missed",
		"and beside one to which it is published, HTTP/1.1 64ms 50ms 1.28 1.50 reached",
		"and beside one that has it from Redis, HTTP/1.1 64ms 64ms 1.00 1.50 reached",
		"HTTP/1.1 bare, of its own events 25.0 KiB 1 - - 32ms",
		"HTTP/1.1 results service 30.0 KiB 1 16ms 16ms 64ms",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
}
