//go:build chaos || soak

package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/cmd/faults/proxy"
	"github.com/penstock/penstock/cmd/system"
)

// drainWithin is how long a load may take to end once everything has healed.
const drainWithin = 120 * time.Second

// strike is one fault of a plan: what, on which of its kind, when and for how
// long. A plan is a function of its seed.
type strike struct {
	At, For time.Duration
	Kind    string
	Which   int    // of the brokers, workers, … modulo how many there are
	Link    string // of the kind "link"
	Wrong   wrongKind
}

func (s strike) String() string {
	what := s.Kind
	if s.Kind == "link" {
		what = fmt.Sprintf("%s %s", s.Link, s.Wrong.name)
	}
	return fmt.Sprintf("%s (%.0f s)", what, s.For.Seconds())
}

// wrongKind is a way to wrong a link.
type wrongKind struct {
	name  string
	fault proxy.Fault
}

func wrongKinds() []wrongKind {
	return []wrongKind{
		{"latency", proxy.Fault{Latency: 200 * time.Millisecond, Jitter: 100 * time.Millisecond}},
		{"bandwidth", proxy.Fault{Bandwidth: 64 << 10}},
		{"reset", proxy.Fault{}},
		{"black hole", proxy.Fault{BlackHole: true}},
		{"held back", proxy.Fault{Hold: true}},
		{"slow close", proxy.Fault{SlowClose: 5 * time.Second}},
		{"cut", proxy.Fault{Cut: true}},
	}
}

// kinds are the matrix's faults that real processes can have at random; links
// stand several times because there are many.
func kinds() []string {
	return []string{
		"broker killed", "broker frozen", "all brokers killed",
		"redis killed and empty", "redis flushed", "redis promoted", "redis frozen",
		"worker killed", "worker killed", "worker frozen", "worker frozen", "worker drained", "worker storm",
		"producer killed", "producer frozen", "producer drained",
		"results killed", "results frozen", "results drained",
		"engine fails", "engine cuts streams", "engine babbles", "engine away",
		"link", "link", "link", "link", "link", "link",
	}
}

// plan draws n strikes, one each step on average, each for 2 to 14 seconds, so
// that some overlap.
func plan(seed uint64, n int, step time.Duration) []strike {
	rng := rand.New(rand.NewPCG(seed, 0x70656e73))
	links := []string{
		system.ProducerKafka, system.WorkerKafka, system.ResultsKafka, system.ProducerRedis, system.WorkerRedis,
		system.ResultsRedis, system.WorkerBackend, system.ClientProducer, system.ClientResults,
	}
	out := make([]strike, n)
	for i := range out {
		jitter := time.Duration(rng.Int64N(int64(step))) - step/2
		out[i] = strike{
			At:   max(0, time.Duration(i)*step+step/2+jitter),
			For:  2*time.Second + time.Duration(rng.Int64N(int64(12*time.Second))),
			Kind: kinds()[rng.IntN(len(kinds()))], Which: rng.IntN(1 << 16),
			Link: links[rng.IntN(len(links))], Wrong: wrongKinds()[rng.IntN(len(wrongKinds()))],
		}
	}
	slices.SortStableFunc(out, func(a, b strike) int { return int(a.At - b.At) })
	return out
}

// wrath puts strikes upon a rig.
type wrath struct {
	r  *rig
	mu sync.Mutex // guards r.Redis, which a promotion changes
}

// run executes a plan and returns once its last strike is over. What a strike
// cannot do, because another has been there first, is no error.
func (w *wrath) run(ctx context.Context, list []strike) error {
	began := time.Now()
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, s := range list {
		all.Go(func() {
			if sleep(ctx, time.Until(began.Add(s.At))) != nil {
				return
			}
			if err := w.strike(ctx, s); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", s, err))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// strike does and undoes one.
func (w *wrath) strike(ctx context.Context, s strike) error {
	r := w.r
	brokers, redis := r.Kafka.Brokers, w.redis()
	switch s.Kind {
	case "broker killed":
		return down(ctx, s.For, pick(brokers, s.Which))
	case "all brokers killed":
		return down(ctx, s.For, brokers...)
	case "broker frozen":
		return frozen(ctx, s.For, pick(brokers, s.Which))
	case "redis killed and empty":
		return down(ctx, s.For, redis)
	case "redis frozen":
		return frozen(ctx, s.For, redis)
	case "redis flushed":
		return flush(ctx, redis)
	case "redis promoted":
		return w.promote(ctx)
	case "worker killed":
		return down(ctx, s.For, pick(r.Workers, s.Which))
	case "worker frozen":
		return frozen(ctx, s.For, pick(r.Workers, s.Which))
	case "worker drained":
		return drain(pick(r.Workers, s.Which))
	case "worker storm":
		return storm(ctx, s.For, pick(r.Workers, s.Which))
	case "producer killed":
		return down(ctx, s.For, pick(r.Producers, s.Which))
	case "producer frozen":
		return frozen(ctx, s.For, pick(r.Producers, s.Which))
	case "producer drained":
		return drain(pick(r.Producers, s.Which))
	case "results killed":
		return down(ctx, s.For, pick(r.Results, s.Which))
	case "results frozen":
		return frozen(ctx, s.For, pick(r.Results, s.Which))
	case "results drained":
		return drain(pick(r.Results, s.Which))
	case "engine fails":
		return w.engine(ctx, s.For, `{"ratio":0.3,"status":500}`)
	case "engine cuts streams":
		return w.engine(ctx, s.For, `{"ratio":0.5,"action":"cut","after":2}`)
	case "engine babbles":
		return w.engine(ctx, s.For, `{"ratio":0.3,"action":"garbage"}`)
	case "engine away":
		return w.link(ctx, s.For, system.WorkerBackend, wrongKind{"cut", proxy.Fault{Cut: true}})
	default:
		return w.link(ctx, s.For, s.Link, s.Wrong)
	}
}

func pick(list []*system.Process, which int) *system.Process { return list[which%len(list)] }

func (w *wrath) redis() *system.Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.r.Redis.Process
}

// down kills and starts again; somebody else may have started it meanwhile.
func down(ctx context.Context, d time.Duration, list ...*system.Process) error {
	var errs []error
	for _, p := range list {
		errs = append(errs, p.Kill9())
	}
	_ = sleep(ctx, d)
	for _, p := range list {
		if !p.Alive() {
			errs = append(errs, p.Start())
		}
	}
	return errors.Join(errs...)
}

func frozen(ctx context.Context, d time.Duration, p *system.Process) error {
	if err := p.Stop(); err != nil {
		return err
	}
	_ = sleep(ctx, d)
	return p.Cont()
}

// drain replaces a service in order. One that cannot drain in time, because of
// another strike, is killed; that is no error here.
func drain(p *system.Process) error {
	_ = p.Term()
	if p.Alive() {
		return nil
	}
	return p.Start()
}

// storm lets a member leave and join every two seconds.
func storm(ctx context.Context, d time.Duration, p *system.Process) error {
	for until := time.Now().Add(d); time.Now().Before(until) && ctx.Err() == nil; {
		if err := down(ctx, time.Second, p); err != nil {
			return err
		}
		_ = sleep(ctx, time.Second)
	}
	return nil
}

func flush(ctx context.Context, p *system.Process) error {
	opts, err := redis.ParseURL(p.URL)
	if err != nil {
		return err
	}
	opts.MaxRetries = -1
	cl := redis.NewClient(opts)
	defer cl.Close()
	_ = cl.FlushAll(ctx).Err() // a dead or frozen one has nothing to flush
	return nil
}

// promote fails over to the replica, which lacks the last second. Once: then
// there is no replica any more.
func (w *wrath) promote(ctx context.Context) error {
	w.r.Links.Set(system.RedisReplica, proxy.Fault{Hold: true})
	_ = sleep(ctx, time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.r.Redis.Replica.Alive() || w.r.promoted {
		return nil
	}
	w.r.promoted = true
	return w.r.Redis.Promote(ctx)
}

// engine switches a fault of every simulator on, and all of them off.
func (w *wrath) engine(ctx context.Context, d time.Duration, fault string) error {
	var errs []error
	for _, p := range w.r.Simulators {
		errs = append(errs, ask(ctx, http.MethodPost, p.URL+"/sim/faults", fault))
	}
	_ = sleep(ctx, d)
	for _, p := range w.r.Simulators {
		errs = append(errs, ask(context.WithoutCancel(ctx), http.MethodDelete, p.URL+"/sim/faults", ""))
	}
	return errors.Join(errs...)
}

func ask(ctx context.Context, method, url, body string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s answers %s", method, url, res.Status)
	}
	return nil
}

func (w *wrath) link(ctx context.Context, d time.Duration, name string, wrong wrongKind) error {
	w.r.Links.Set(name, wrong.fault)
	if wrong.name == "reset" {
		w.r.Links.Reset(name)
	}
	_ = sleep(ctx, d)
	w.r.Links.Set(name, proxy.Fault{})
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(0, d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
