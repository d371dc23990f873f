package route_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/route"
)

const model = "m"

// engine is a backend whose every call ends as the test says.
type engine struct {
	mu    sync.Mutex
	err   error
	takes time.Duration
	key   string
	max   int
	calls int
}

func (e *engine) Join(*task.Task) (string, int) { return e.key, max(1, e.max) }

func (e *engine) Run(ctx context.Context, items []backend.Item) []backend.Outcome {
	e.mu.Lock()
	err, takes := e.err, e.takes
	e.calls++
	e.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return backend.Fail(len(items), backend.Ended(ctx, "engine"))
		}
	}
	if err != nil {
		return backend.Fail(len(items), err)
	}
	out := make([]backend.Outcome, len(items))
	for i := range out {
		out[i].Output = &task.Output{Text: "ok"}
	}
	return out
}

func (e *engine) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

// well is an engine that can be asked how it is.
type well struct {
	engine
	probes int
	ill    error
}

func (w *well) Probe(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes++
	return w.ill
}

func setup(t *testing.T, p route.Params, engines ...backend.Backend) *route.Router {
	t.Helper()
	names := []string{"a", "b", "c", "d"}
	for i, e := range engines {
		p.Members = append(p.Members, route.Member{Name: names[i], Backend: e, Concurrency: 4})
	}
	p.Pool = "default"
	r, err := route.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// call runs one task through the router and returns its error.
func call(t *testing.T, r *route.Router) error {
	t.Helper()
	l, ok := r.TryAcquire(model)
	if !ok {
		t.Fatalf("no backend at %s", time.Now().Format(time.TimeOnly))
	}
	defer l.Release()
	return l.Run(t.Context(), make([]backend.Item, 1))[0].Err
}

func unavailable() error { return fault.New(fault.Unavailable, "broken") }

func TestBreakerOpensAfterFiveFailuresInARowAndTriesOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{err: unavailable()}
		r := setup(t, route.Params{}, e)
		for range 5 {
			if c := fault.ClassOf(call(t, r)); c != fault.ClassTask {
				t.Fatalf("class %s before the breaker opened, want task", c)
			}
		}
		if _, ok := r.TryAcquire(model); ok || r.Free(model) != 0 {
			t.Fatal("an open breaker lets calls through")
		}
		until, cause := r.Paused(model)
		if fault.CodeOf(cause) != fault.Unavailable || fault.ClassOf(cause) != fault.ClassSystem {
			t.Errorf("cause %v, want unavailable of class system", cause)
		}
		if wait := time.Until(until); wait <= 0 || wait > 1100*time.Millisecond {
			t.Errorf("paused for %s, want about 1s", wait)
		}
		began, tries := time.Now(), 0
		for time.Since(began) < 10*time.Second {
			l, err := r.Acquire(t.Context(), model)
			if err != nil {
				t.Fatal(err)
			}
			if !l.Probing() {
				t.Fatal("a call through a half-open breaker does not know that it tries")
			}
			if _, second := r.TryAcquire(model); second {
				t.Fatal("two calls try a half-open breaker at once")
			}
			if c := fault.ClassOf(l.Run(t.Context(), make([]backend.Item, 2))[1].Err); c != fault.ClassSystem {
				t.Errorf("a failed try has class %s: it costs its tasks an attempt", c)
			}
			l.Release()
			tries++
		}
		if tries < 9 || tries > 10 {
			t.Errorf("%d tries in 10 s, want one a second", tries)
		}
		e.end(nil)
		l, err := r.Acquire(t.Context(), model)
		if err != nil {
			t.Fatal(err)
		}
		l.Run(t.Context(), make([]backend.Item, 1))
		l.Release()
		if r.Free(model) != 4 {
			t.Errorf("%d places after a try succeeded, want 4", r.Free(model))
		}
	})
}

func TestBreakerOpensAtHalfOfTenCalls(t *testing.T) {
	for _, tc := range []struct {
		name  string
		every time.Duration
		opens bool
	}{
		{"within the window", 100 * time.Millisecond, true},
		{"not when they are spread over longer", 2 * time.Second, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &engine{}
				r := setup(t, route.Params{}, e)
				for i := range 20 {
					if i%2 == 0 {
						e.end(unavailable())
					} else {
						e.end(nil)
					}
					if _, cause := r.Paused(model); cause != nil {
						break
					}
					_ = call(t, r)
					time.Sleep(tc.every)
				}
				e.mu.Lock()
				defer e.mu.Unlock()
				if opened := e.calls < 20; opened != tc.opens {
					t.Errorf("opened: %v after %d calls", opened, e.calls)
				}
			})
		})
	}
}

// A call is longer than the window that failures are counted over: they must
// count all the same, or a backend that hangs is never left alone.
func TestBreakerOpensOnCallsThatOutlastItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{err: fault.New(fault.Timeout, "silence"), takes: 2 * time.Minute}
		r := setup(t, route.Params{}, e)
		for range 5 {
			_ = call(t, r)
		}
		if _, cause := r.Paused(model); cause == nil {
			t.Error("five timeouts in a row left the breaker closed")
		}
	})
}

func TestWhatIsNotTheBackendsFaultNeverOpensTheBreaker(t *testing.T) {
	for _, code := range []fault.Code{fault.Rejected, fault.Cancelled, fault.Expired, fault.Interrupted, fault.Internal} {
		t.Run(string(code), func(t *testing.T) {
			r := setup(t, route.Params{}, &engine{err: fault.New(code, "x")})
			for range 50 {
				if err := call(t, r); fault.CodeOf(err) != code {
					t.Fatal(err)
				}
			}
			if _, cause := r.Paused(model); cause != nil {
				t.Errorf("paused: %v", cause)
			}
		})
	}
}

func TestABreakerConcernsOneModel(t *testing.T) {
	r := setup(t, route.Params{}, &engine{err: unavailable()})
	for range 5 {
		_ = call(t, r)
	}
	if r.Free(model) != 0 || r.Free("another") != 4 {
		t.Errorf("free: %d for the broken model, %d for another", r.Free(model), r.Free("another"))
	}
}

func TestThrottlingPausesTheBackendForAsLongAsItAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{err: &fault.Error{Code: fault.Throttled, RetryAfter: 3 * time.Second}}
		r := setup(t, route.Params{}, e)
		_ = call(t, r)
		until, cause := r.Paused(model)
		if fault.CodeOf(cause) != fault.Throttled || time.Until(until) != 3*time.Second {
			t.Fatalf("paused for %s by %v", time.Until(until), cause)
		}
		<-r.Changed() // of the call's end
		began := time.Now()
		<-r.Changed() // of the pause's end
		if _, cause := r.Paused(model); cause != nil {
			t.Errorf("still paused %s later: %v", time.Since(began), cause)
		}
	})
}

func TestHealthChecksTakeABackendOutAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &well{ill: errors.New("down")}, &well{}
		reg := prometheus.NewRegistry()
		r := setup(t, route.Params{Metrics: reg}, a, b)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.Run(ctx) })
		time.Sleep(6 * time.Second)
		if r.Free(model) != 8 {
			t.Errorf("%d places after two failed checks, want 8", r.Free(model))
		}
		time.Sleep(5 * time.Second)
		if r.Free(model) != 4 {
			t.Errorf("%d places after three failed checks, want 4", r.Free(model))
		}
		if list := r.List(); list[0].Healthy || !list[1].Healthy {
			t.Errorf("list %+v", list)
		}
		if n := testutil.CollectAndCount(reg, "penstock_worker_backend_up"); n != 2 {
			t.Errorf("%d gauges of health, want 2", n)
		}
		a.mu.Lock()
		a.ill = nil
		a.mu.Unlock()
		time.Sleep(5 * time.Second)
		if r.Free(model) != 8 {
			t.Errorf("%d places after a check succeeded, want 8", r.Free(model))
		}
		cancel()
		wg.Wait()
	})
}

func TestABackendNeverRunsMoreThanItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{takes: 10 * time.Millisecond}
		r := setup(t, route.Params{}, e)
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				l, err := r.Acquire(t.Context(), model)
				if err != nil {
					t.Error(err)
					return
				}
				defer l.Release()
				if n := r.List()[0].InFlight; n > 4 {
					t.Errorf("%d calls at once", n)
				}
				l.Run(t.Context(), make([]backend.Item, 1))
			})
		}
		began := time.Now()
		wg.Wait()
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("40 calls of 10 ms over 4 places took %s", took)
		}
		if r.Free(model) != 4 {
			t.Errorf("%d places at the end", r.Free(model))
		}
	})
}

func TestAcquireGivesUpWithItsContext(t *testing.T) {
	r := setup(t, route.Params{}, &engine{})
	for range 4 {
		if _, ok := r.TryAcquire(model); !ok {
			t.Fatal("no place")
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := r.Acquire(ctx, model); !errors.Is(err, gone) {
		t.Errorf("err %v, want the cause", err)
	}
}

func TestFailoverPrefersAnotherBackend(t *testing.T) {
	r := setup(t, route.Params{}, &engine{}, &engine{})
	for range 4 {
		l, ok := r.TryAcquire(model, "a")
		if !ok || l.Name() != "b" {
			t.Fatalf("got %v", l)
		}
	}
	if l, ok := r.TryAcquire(model, "a"); ok {
		t.Errorf("%s was chosen while another is only busy", l.Name())
	}
	alone := setup(t, route.Params{}, &engine{})
	if _, ok := alone.TryAcquire(model, "a"); !ok {
		t.Error("the only backend is refused because it failed once")
	}
}

func TestStrategies(t *testing.T) {
	const calls = 1200
	for _, tc := range []struct {
		strategy route.Strategy
		low, hi  float64 // of the slow backend's share, one of three
	}{
		{route.RoundRobin, 1. / 3, 1. / 3},
		{route.Random, 0.28, 0.39},
		{route.ResponseTime, 0.02, 0.10}, // ten times slower: 1/21
	} {
		t.Run(string(tc.strategy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slow := &engine{takes: 100 * time.Millisecond}
				r := setup(t, route.Params{Strategy: tc.strategy}, slow, &engine{takes: 10 * time.Millisecond}, &engine{takes: 10 * time.Millisecond})
				for range calls {
					if err := call(t, r); err != nil {
						t.Fatal(err)
					}
				}
				share := float64(slow.calls) / calls
				if share < tc.low-1e-9 || share > tc.hi+1e-9 {
					t.Errorf("the slow backend got %.3f of the calls, want %.3f to %.3f", share, tc.low, tc.hi)
				}
			})
		})
	}
	t.Run("least keeps backends equally busy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := setup(t, route.Params{}, &engine{}, &engine{}, &engine{}, &engine{})
			for range 12 {
				if _, ok := r.TryAcquire(model); !ok {
					t.Fatal("no place")
				}
			}
			for _, s := range r.List() {
				if s.InFlight < 1 || s.InFlight > 4 {
					t.Errorf("%s runs %d of 12", s.Name, s.InFlight)
				}
			}
		})
	})
}

func TestModels(t *testing.T) {
	r, err := route.New(route.Params{Pool: "p", Members: []route.Member{
		{Name: "a", Backend: &engine{key: "ka", max: 32}, Models: []string{"x", "y"}, Concurrency: 2},
		{Name: "b", Backend: &engine{key: "kb", max: 8}, Models: []string{"y"}, Concurrency: 3},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if x, y, z := r.Free("x"), r.Free("y"), r.Free("z"); x != 2 || y != 5 || z != 0 {
		t.Errorf("free: x %d, y %d, z %d", x, y, z)
	}
	if _, n := r.Join(&task.Task{Model: "y"}); n != 8 {
		t.Errorf("joins %d, want the smaller limit", n)
	}
	if kx, _ := r.Join(&task.Task{Model: "x"}); kx != "ka" {
		t.Errorf("key %q", kx)
	}
	if _, err := r.Acquire(t.Context(), "z"); !errors.Is(err, route.ErrNoBackend) {
		t.Errorf("err %v", err)
	}
	if _, cause := r.Paused("z"); fault.ClassOf(cause) != fault.ClassSystem {
		t.Errorf("cause %v", cause)
	}
}

func TestALeaseOfAnOpenedBreakerRunsNothingMore(t *testing.T) {
	e := &engine{err: unavailable()}
	r := setup(t, route.Params{}, e)
	l, _ := r.TryAcquire(model)
	for range 5 {
		l.Run(t.Context(), make([]backend.Item, 3))
	}
	if l.Open() {
		t.Error("open")
	}
	out := l.Run(t.Context(), make([]backend.Item, 3))
	if len(out) != 3 || fault.ClassOf(out[0].Err) != fault.ClassSystem || e.calls != 5 {
		t.Errorf("%d calls, outcome %v", e.calls, out[0].Err)
	}
	l.Release()
	l.Release()
	if n := r.List()[0].InFlight; n != 0 {
		t.Errorf("%d in flight after two releases", n)
	}
}

func TestAnUnusedTryIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{err: unavailable()}
		r := setup(t, route.Params{}, e)
		for range 5 {
			_ = call(t, r)
		}
		e.end(nil)
		l, err := r.Acquire(t.Context(), model)
		if err != nil || !l.Probing() {
			t.Fatal(l, err)
		}
		l.Release() // its tasks had all ended
		began := time.Now()
		l, err = r.Acquire(t.Context(), model)
		if err != nil || !l.Probing() || time.Since(began) > 2*time.Second {
			t.Fatal(l, err, time.Since(began))
		}
		l.Run(t.Context(), make([]backend.Item, 1))
		l.Release()
		if r.Free(model) != 4 {
			t.Error("the breaker did not close")
		}
	})
}

func TestVerdict(t *testing.T) {
	ok, refused := backend.Outcome{}, backend.Outcome{Err: fault.New(fault.Rejected, "")}
	cancelled := backend.Outcome{Err: fault.New(fault.Cancelled, "")}
	throttled := backend.Outcome{Err: fault.New(fault.Throttled, "")}
	broken := backend.Outcome{Err: unavailable()}
	for _, tc := range []struct {
		name string
		out  []backend.Outcome
		want error
	}{
		{"one success clears the backend", []backend.Outcome{broken, ok}, nil},
		{"so does a refusal", []backend.Outcome{broken, refused}, nil},
		{"a failure weighs more than a cancel", []backend.Outcome{cancelled, broken}, broken.Err},
		{"a throttle weighs more than a cancel", []backend.Outcome{cancelled, throttled}, throttled.Err},
		{"only cancels", []backend.Outcome{cancelled}, cancelled.Err},
	} {
		if got := route.Verdict(tc.out); !errors.Is(got, tc.want) && got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for name, p := range map[string]route.Params{
		"no backends":      {},
		"unknown strategy": {Strategy: "fastest", Members: []route.Member{{Name: "a", Backend: &engine{}}}},
		"a name twice":     {Members: []route.Member{{Name: "a", Backend: &engine{}}, {Name: "a", Backend: &engine{}}}},
	} {
		if _, err := route.New(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestABackendOfAnyModelKeepsABoundedNumberOfBreakers(t *testing.T) {
	r := setup(t, route.Params{}, &engine{})
	for i := range 1000 {
		l, ok := r.TryAcquire(fmt.Sprint("model ", i))
		if !ok {
			t.Fatal("no place")
		}
		l.Run(t.Context(), make([]backend.Item, 1))
		l.Release()
	}
	if n := len(r.List()[0].Breakers); n > 300 {
		t.Errorf("%d breakers", n)
	}
}
