//go:build faults || chaos || soak

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

const (
	// beatEvery is the time between two calls of a beat: the precision of a gap.
	beatEvery = 50 * time.Millisecond
	// beatsAtOnce bounds the calls that have no answer yet; further ones are
	// left out, as they could only add to the waiting.
	beatsAtOnce = 512
)

// call is one call of a beat and what came of it.
type call struct {
	n            int
	began, ended time.Time
	err          error
	id           task.ID // of the task accepted, where there is one
}

// beat calls something at a steady rate, however long each call takes, and
// keeps what came of it: how long a service was away is the longest time
// between two successes.
type beat struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	calls []call
}

func startBeat(ctx context.Context, do func(ctx context.Context, n int) (task.ID, error)) *beat {
	b := &beat{}
	slots := make(chan struct{}, beatsAtOnce)
	calls := ctx // a call is not cancelled by the end of the beat
	ctx, b.stop = context.WithCancel(ctx)
	b.wg.Go(func() {
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case slots <- struct{}{}:
				b.wg.Go(func() { b.call(calls, n, do); <-slots })
			default:
			}
		}
	})
	return b
}

func (b *beat) call(ctx context.Context, n int, do func(ctx context.Context, n int) (task.ID, error)) {
	c := call{n: n, began: time.Now()}
	c.id, c.err = do(ctx, n)
	c.ended = time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, c)
}

// end stops the beat, awaits its calls and returns them in the order in which
// they ended.
func (b *beat) end() []call {
	b.stop()
	b.wg.Wait()
	return b.sofar()
}

func (b *beat) sofar() []call {
	b.mu.Lock()
	out := slices.Clone(b.calls)
	b.mu.Unlock()
	slices.SortFunc(out, func(a, c call) int { return a.ended.Compare(c.ended) })
	return out
}

// successAfter tells whether a call that began after t has succeeded.
func (b *beat) successAfter(t time.Time) bool {
	return slices.ContainsFunc(b.sofar(), func(c call) bool { return c.err == nil && c.began.After(t) })
}

// outage is how long somebody had to wait: the longest time without a success,
// or the longest call that succeeded in the end. The latter tells of a part of
// the partitions while the others went on.
func outage(calls []call) time.Duration {
	var (
		last    time.Time
		longest time.Duration
	)
	for _, c := range calls {
		if c.err != nil {
			continue
		}
		longest = max(longest, c.ended.Sub(c.began))
		if !last.IsZero() {
			longest = max(longest, c.ended.Sub(last))
		}
		last = c.ended
	}
	return longest
}

// submits is a beat of tasks through the ingress. Each has an idempotency key,
// under which settleUnknown may ask again.
func (r *rig) submits(t *testing.T) *beat {
	t.Helper()
	return startBeat(t.Context(), func(ctx context.Context, n int) (task.ID, error) { return r.submit(ctx, t.Name(), n) })
}

func (r *rig) submit(ctx context.Context, name string, n int) (task.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	got, err := r.Client().Submit(ctx, beatTask(n), fmt.Sprintf("%s-%d", name, n))
	return got.TaskID, err
}

func beatTask(n int) api.SubmitRequest { return prompt(fmt.Sprint("beat ", n)) }

// refused is an answer that says the task was not taken for now.
func refused(err error) (retryAfter time.Duration, ok bool) {
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != http.StatusServiceUnavailable {
		return 0, false
	}
	return e.RetryAfter, true
}

// idle is a beat of empty records by a client that does nothing else, around
// the links, to a partition that a broker leads: what Kafka itself needs to
// come back.
func (r *rig) idle(t *testing.T, broker int) *beat {
	t.Helper()
	partition := r.led(t, broker)
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: r.Kafka.Addrs, ClientID: "idle"},
		slog.New(slog.DiscardHandler), kafkaclient.ProducerOpts(1<<20)...)
	must(t, err)
	t.Cleanup(cl.Close)
	return startBeat(t.Context(), func(ctx context.Context, _ int) (task.ID, error) {
		rec := &kgo.Record{Topic: idleTopic}
		kafkaclient.PinPartition(rec, partition)
		return "", cl.ProduceSync(ctx, rec).FirstErr()
	})
}

// accepted are the ids of the calls that were answered 202.
func accepted(calls []call) []task.ID {
	var out []task.ID
	for _, c := range calls {
		if c.err == nil {
			out = append(out, c.id)
		}
	}
	return out
}

// settleUnknown asks again, under the same key, about every task that was
// neither accepted nor refused, as the API tells clients to; then all calls
// have an answer.
func (r *rig) settleUnknown(t *testing.T, calls []call) []task.ID {
	t.Helper()
	var out []task.ID
	for _, c := range calls {
		if _, no := refused(c.err); c.err == nil || no {
			continue
		}
		id, err := r.submit(t.Context(), t.Name(), c.n)
		must(t, err)
		out = append(out, id)
	}
	return out
}
