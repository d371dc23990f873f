package bench

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
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
type inside struct{ bareVenue }

func (inside) pid() int { return os.Getpid() }

// serveBare serves the bare server, with a Redis that feeds it.
func serveBare(t *testing.T) inside {
	t.Helper()
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("no /proc here")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	ctx, stop := context.WithCancel(context.Background())
	events := &bare.Events{Plan: func(rate float64, length time.Duration) []time.Duration { return Poisson(rate, length, 1) }}
	var g errgroup.Group
	g.Go(func() error { return events.Serve(ctx, ln) })
	g.Go(func() error { return events.Feed(ctx, rdb) })
	t.Cleanup(func() {
		stop()
		if err := errors.Join(g.Wait(), rdb.Close()); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return inside{bareVenue{&bareChild{url: "http://" + ln.Addr().String()}, rdb}}
}

// hurry is how much shorter acts are here.
const hurry = 50

// hurried is an act in less time.
func hurried(a act) act {
	emit := a.emit
	a.emit = func(ctx context.Context, rate float64, length time.Duration) (int, Result, error) {
		return emit(ctx, rate, length/hurry)
	}
	return a
}

func TestCrowd(t *testing.T) {
	c := Crowd{Streams: 30, Rate: 2000, Length: 2 * time.Second}
	due := int64(len(Poisson(c.Rate, c.Length/2/hurry, 1))) // half of them come in a round
	for _, protocol := range []string{overHTTP1, overH2C} {
		v, r := serveBare(t), round{}
		acts := r.acts(v.bareVenue)
		for i := range acts {
			acts[i] = hurried(acts[i])
		}
		if err := c.hold(t.Context(), v, protocol, acts...); err != nil {
			t.Fatal(err)
		}
		for _, s := range []struct {
			name   string
			side   CrowdSide
			writes int64
		}{
			{"the server's own", r.sides.Bare, 0},
			{"those that are published over HTTP", r.sides.Told, due},
			{"those from Redis", r.sides.Fed, due},
		} {
			t.Run("every event is heard over "+protocol+", of "+s.name, func(t *testing.T) {
				if s.side.Delivery.Calls != due || s.side.Write.Calls != s.writes {
					t.Errorf("%d were heard and %d writes timed; want %d and %d", s.side.Delivery.Calls, s.side.Write.Calls, due, s.writes)
				}
				if p99 := s.side.Delivery.Quantile(99); p99 <= 0 || p99 > 5*time.Second {
					t.Errorf("p99 is %s", p99)
				}
				if s.side.Protocol != protocol || s.side.PerHead != r.sides.Bare.PerHead {
					t.Errorf("%q with %f bytes; the first has %f", s.side.Protocol, s.side.PerHead, r.sides.Bare.PerHead)
				}
			})
		}
	}
	t.Run("one that is not there is not a stream", func(t *testing.T) {
		v := serveBare(t)
		a := newAudience(overHTTP1)
		defer a.close()
		if err := a.open(t.Context(), []string{v.url + "/nothing"}); err == nil {
			t.Error("it is open")
		}
	})
}

func TestAnEventThatDoesNotComeIsAnError(t *testing.T) {
	t.Parallel() // it waits for as long as an event may take
	v, side := serveBare(t), CrowdSide{}
	losing := hurried(act{&side, func(ctx context.Context, rate float64, length time.Duration) (int, Result, error) {
		n, writes, err := v.own(ctx, rate, length)
		return n + 1, writes, err
	}})
	err := Crowd{Streams: 2, Rate: 2000, Length: time.Second}.hold(t.Context(), v, overHTTP1, losing)
	if err == nil || !strings.Contains(err.Error(), "were written") {
		t.Errorf("the error is %v", err)
	}
}

func TestTheSecondRoundGoesBackwards(t *testing.T) {
	there, back := round{}, round{backwards: true}
	for _, c := range []struct {
		name string
		acts []act
		want []*CrowdSide
	}{
		{"there", there.acts(bareVenue{}), []*CrowdSide{&there.sides.Bare, &there.sides.Told, &there.sides.Fed}},
		{"and back", back.acts(bareVenue{}), []*CrowdSide{&back.sides.Fed, &back.sides.Told, &back.sides.Bare}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []*CrowdSide
			for _, a := range c.acts {
				got = append(got, a.side)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("the acts measure %p, want %p", got, c.want)
			}
		})
	}
}

// draw makes up both rounds of a side, and what they come to.
func draw(r *rand.Rand) (one, other, both CrowdSide) {
	writes, deliveries := newTally(), newTally()
	result := func(all *tally) Result {
		t := newTally()
		for range 1 + r.IntN(200) {
			took := time.Duration(r.ExpFloat64() * float64(time.Millisecond))
			t.add(took, nil)
			all.add(took, nil)
		}
		t.failed = int64(r.IntN(3))
		all.failed += t.failed
		return merge([]*tally{t}, time.Duration(r.IntN(1e9)))
	}
	side := func() CrowdSide {
		return CrowdSide{overH2C, 1e5 * r.Float64(), result(writes), result(deliveries), time.Duration(r.IntN(1e9))}
	}
	one, other = side(), side()
	return one, other, CrowdSide{
		Protocol: overH2C,
		PerHead:  (one.PerHead + other.PerHead) / 2,
		Write:    merge([]*tally{writes}, one.Write.Elapsed+other.Write.Elapsed),
		Delivery: merge([]*tally{deliveries}, one.Delivery.Elapsed+other.Delivery.Elapsed),
		CPU:      one.CPU + other.CPU,
	}
}

func TestJoinedRounds(t *testing.T) {
	t.Run("each side has the events, the quantiles and the processor time of both, and the mean of the memory", func(t *testing.T) {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 0))
			var got, other, want CrowdSides
			got.Ours, other.Ours, want.Ours = draw(r)
			got.Bare, other.Bare, want.Bare = draw(r)
			got.Told, other.Told, want.Told = draw(r)
			got.Fed, other.Fed, want.Fed = draw(r)
			got.join(other)
			if diff := cmp.Diff(want, got, cmp.Comparer((*hdrhistogram.Histogram).Equals)); diff != "" {
				t.Errorf("seed %d (-want +got):\n%s", seed, diff)
			}
		}
	})
	t.Run("where nobody writes, nobody did", func(t *testing.T) {
		var side CrowdSide
		side.join(CrowdSide{})
		if side.write(99) != "-" {
			t.Errorf("a write took %s", side.write(99))
		}
	})
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
