package joblog_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/internal/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestASeatGoesToTheFirstClaimOfTheNextEpoch(t *testing.T) {
	var s joblog.Seat
	now := time.Now()
	if !s.Free(now, time.Minute) || s.Is("", 0) {
		t.Error("a new seat is not free, or somebody's")
	}
	if s.Claim("a", 2, now) || !s.Claim("a", 1, now) || s.Claim("b", 1, now) {
		t.Fatal("the first claim of epoch 1, and it alone, must win")
	}
	if !s.Is("a", 1) || s.Is("b", 1) || s.Is("a", 2) {
		t.Errorf("the seat is %+v", s)
	}
	if s.Free(now.Add(time.Minute), time.Minute) || !s.Free(now.Add(time.Minute+1), time.Minute) {
		t.Error("the lease does not end after a minute of silence")
	}
	if s.Heard("b", 1, now.Add(time.Hour)) || !s.Heard("a", 1, now.Add(time.Second)) || s.Free(now.Add(time.Minute+time.Second), time.Minute) {
		t.Error("a beat of the owner, and only that, keeps the seat")
	}
	if !s.Claim("b", 2, now) || s.Heard("a", 1, now) {
		t.Error("an heir is not granted the seat, or the former owner still beats")
	}
	s.Leave()
	if !s.Free(now, time.Hour) || s.Is("b", 2) || s.Claim("c", 2, now) || !s.Claim("c", 3, now) {
		t.Error("a seat that was left is not free for the next epoch alone")
	}
}

func TestAnIDTellsItsTime(t *testing.T) {
	now := time.UnixMilli(1_795_000_000_123)
	a, b := joblog.NewID("batch_", now), joblog.NewID("batch_", now.Add(time.Millisecond))
	if a >= b {
		t.Errorf("%s does not sort before %s", a, b)
	}
	if got := joblog.IDTime("batch_", a); !got.Equal(now) {
		t.Errorf("made at %s, says %s", now, got)
	}
	for _, bad := range []string{"", "batch_", "file-" + a[6:], a + "0", a[:20], "batch_" + a[7:] + "Z"} {
		if got := joblog.IDTime("batch_", bad); !got.IsZero() {
			t.Errorf("%q was made at %s", bad, got)
		}
	}
}

// board is a log in memory that several crews share.
type board struct {
	mu    sync.Mutex
	log   []func()
	seats map[string]*joblog.Seat
	done  map[string]bool
	runs  map[string]int
	both  int
	busy  map[string]int
	marks []*joblog.Mark
	ready chan struct{} // closed: the log is read
	fail  bool
}

func (b *board) append(entry func()) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, entry)
	entry()
	for _, m := range b.marks {
		m.Advance(int64(len(b.log)))
	}
	return int64(len(b.log) - 1)
}

func (b *board) crew(name string, hold time.Duration) *joblog.Crew {
	mark := joblog.NewMark()
	b.marks = append(b.marks, mark)
	return &joblog.Crew{
		Ready: b.ready, Lease: 10 * time.Second, Slots: 2, Mark: mark, Log: slog.New(slog.DiscardHandler),
		Offers: func(now time.Time) (out []joblog.Offer) {
			b.mu.Lock()
			defer b.mu.Unlock()
			for job, s := range b.seats {
				if !b.done[job] && s.Free(now, 10*time.Second) {
					out = append(out, joblog.Offer{Job: job, Epoch: s.Epoch + 1})
				}
			}
			return out
		},
		Claim: func(_ context.Context, o joblog.Offer) (int64, error) {
			b.mu.Lock()
			fail := b.fail
			b.fail = false
			b.mu.Unlock()
			if fail {
				return 0, errors.New("kafka is away")
			}
			return b.append(func() { b.seats[o.Job].Claim(name, o.Epoch, time.Now()) }), nil
		},
		Granted: func(o joblog.Offer) func(context.Context) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if !b.seats[o.Job].Is(name, o.Epoch) {
				return nil
			}
			return func(ctx context.Context) { b.run(ctx, o, name, hold) }
		},
	}
}

func (b *board) run(ctx context.Context, o joblog.Offer, name string, hold time.Duration) {
	b.mu.Lock()
	b.runs[o.Job]++
	if b.busy[o.Job]++; b.busy[o.Job] > 1 {
		b.both++
	}
	b.mu.Unlock()
	worked := lifecycle.Pause(ctx, hold)
	b.append(func() {
		b.busy[o.Job]--
		if b.seats[o.Job].Is(name, o.Epoch) && worked {
			b.done[o.Job] = true
			b.seats[o.Job].Leave()
		}
	})
}

func TestCrewsRunEachJobOnceAndInheritTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{seats: map[string]*joblog.Seat{}, done: map[string]bool{}, runs: map[string]int{}, busy: map[string]int{}, ready: make(chan struct{}), fail: true}
		for _, job := range []string{"j1", "j2", "j3", "j4", "j5"} {
			b.seats[job] = new(joblog.Seat)
		}
		b.seats["j1"].Claim("killed", 1, time.Now()) // and never heard of again
		ctx, stop := context.WithCancel(t.Context())
		var crews sync.WaitGroup
		one, two := b.crew("one", time.Second), b.crew("two", time.Second)
		crews.Go(func() { one.Run(ctx) })
		crews.Go(func() { two.Run(ctx) })
		if synctest.Wait(); len(b.log) != 0 {
			t.Errorf("%d claims before the log was read", len(b.log))
		}
		close(b.ready)
		time.Sleep(9 * time.Second)
		b.mu.Lock()
		if b.runs["j1"] != 0 || len(b.done) != 4 {
			t.Errorf("after 9 s: %v ran, %v are done; want all but j1", b.runs, b.done)
		}
		b.mu.Unlock()
		time.Sleep(5 * time.Second)
		stop()
		crews.Wait()
		for job := range b.seats {
			if !b.done[job] || b.runs[job] != 1 {
				t.Errorf("%s ran %d times, done %t", job, b.runs[job], b.done[job])
			}
		}
		if b.both > 0 {
			t.Errorf("%d times two ran one job", b.both)
		}
	})
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	m := joblog.NewMark()
	m.Advance(3)
	if err := m.Await(t.Context(), 2); err != nil {
		t.Error(err)
	}
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if err := m.Await(ctx, 3); !errors.Is(err, gone) {
		t.Errorf("got %v, want the cause", err)
	}
}

func TestPollGoesOnAfterErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		began, calls := time.Now(), 0
		joblog.Poll(ctx, slog.New(slog.DiscardHandler), func(context.Context) error {
			if calls++; calls > 8 {
				stop()
			}
			return errors.New("kafka is away")
		})
		if took := time.Since(began); calls != 9 || took < 10*time.Second || took > 20*time.Second {
			t.Errorf("%d calls in %s", calls, took)
		}
	})
}
