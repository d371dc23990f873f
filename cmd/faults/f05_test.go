//go:build faults

package faults_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/proxy"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/cmd/system/topiclog"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

// TestF5F6F7F8 wrongs Redis: it comes back empty, is emptied in the middle of
// streams, freezes, is slow, and at last fails over with a second lost. One
// engine is the bottleneck, so that a throughput can be compared.
func TestF5F6F7F8(t *testing.T) {
	t.Parallel()
	r := openRig(t, rigParams{Tenants: tenants(), Replica: true, System: system.Params{
		Workers: 2, Results: 2, Simulate: []string{"--base", "150ms", "--item", "10ms", "--max", "16", "--token", "25ms"},
	}})
	r.keepEvents = true
	t.Run("it is killed and comes back empty", r.f5)
	t.Run("it is emptied in the middle of streams", r.f6)
	t.Run("it freezes, and is slow", r.f8)
	t.Run("a replica that lacks the last second takes over", r.f7)
}

// streaming is a load with many long streams.
func streaming(name string) ledger.Load {
	return ledger.Load{Name: name, Tasks: 600, Streamed: 0.25, StreamTokens: 30, Ordered: 0.1, Seed: 5}
}

func (r *rig) f5(t *testing.T) {
	const down, live = 4 * time.Second, 3 * time.Second
	tr := r.try(t, streaming("f5"), 50)
	until(t, time.Minute, "a fourth has ended", func() bool { return tr.ended() >= 150 })
	must(t, r.Redis.Kill9())
	killed := time.Now()
	before := tr.endedIDs()
	sample := min(40, len(before)) // reading all of them takes longer than restoring them
	pause(t, down)
	must(t, r.Redis.Restart(t.Context()))
	back := time.Now()
	rebuilt, whole := eventually(t, time.Minute, func() bool { return r.showEnded(t, before[len(before)-sample:]) })
	flowing, flows := eventually(t, time.Minute, func() bool { return len(tr.tokensAfter(back)) > 0 })
	flowed := flowing
	if flows {
		flowed = tr.tokensAfter(back)[0].at.Sub(back)
	}
	v := tr.verdict(t, 2*time.Minute)
	during, slowest := tr.acceptedBetween(killed, back)
	report.Row(t, report.Result{
		Fault: "F5", What: fmt.Sprintf("Redis is killed and comes back empty after %s", seconds(down)),
		Target: "submits keep working; no 404 for an accepted id; live SSE back <= 3 s after Redis; rebuild >= 20 k results/s (see the benchmark)",
		Measured: fmt.Sprintf("%d submits accepted while it was away, the slowest in %s; live tokens %s after it was back; a sample of %d results readable again after %s; %d gaps and %d restarts told",
			during, seconds(slowest), seconds(flowed), sample, seconds(rebuilt), v.Streams.Gaps, v.Streams.Restarts),
		OK:     during > 0 && whole && flows && flowed <= live && len(v.WrongFate) == 0 && v.Unknown == 0,
		Broken: v.Broken(), Took: time.Since(tr.began),
	})
}

func (r *rig) f6(t *testing.T) {
	tr := r.try(t, streaming("f6"), 50)
	until(t, time.Minute, "a fourth has ended", func() bool { return tr.ended() >= 150 })
	must(t, r.redis(t).FlushAll(t.Context()).Err())
	v := tr.verdict(t, 2*time.Minute)
	report.Row(t, report.Result{
		Fault: "F6", What: "FLUSHALL in the middle of streams",
		Target:   "restart or gap at most once per task; final text exact",
		Measured: fmt.Sprintf("at most %d per task; %d gaps, %d restarts; texts %v", v.Streams.MostRestarts, v.Streams.Gaps, v.Streams.Restarts, v.Streams.Texts),
		OK:       v.Streams.MostRestarts <= 1 && len(v.WrongFate) == 0,
		Broken:   v.Broken(), Took: time.Since(tr.began),
	})
}

func (r *rig) f7(t *testing.T) {
	tr := r.try(t, streaming("f7"), 50)
	until(t, time.Minute, "a fourth has ended", func() bool { return tr.ended() >= 150 })
	r.Links.Set(system.RedisReplica, proxy.Fault{BlackHole: true})
	pause(t, time.Second)
	must(t, r.Redis.Promote(t.Context()))
	v := tr.verdict(t, 2*time.Minute)
	report.Row(t, report.Result{
		Fault: "F7", What: "a Redis replica that lacks the last second is promoted",
		Target:   "restart or gap at most once per task; terminals unchanged",
		Measured: fmt.Sprintf("at most %d per task; %d gaps, %d restarts; texts %v", v.Streams.MostRestarts, v.Streams.Gaps, v.Streams.Restarts, v.Streams.Texts),
		OK:       v.Streams.MostRestarts <= 1 && len(v.WrongFate) == 0,
		Broken:   v.Broken(), Took: time.Since(tr.began),
	})
}

// f8 measures the throughput well, frozen and slow, of a backlog that outlasts
// all three.
func (r *rig) f8(t *testing.T) {
	const share, terminals = 0.8, time.Second
	tr := r.try(t, ledger.Load{Name: "f8", Tasks: 2300, Streamed: 0.06, StreamTokens: 20, Seed: 8}, 0)
	tr.submitted(t)
	base := r.rate(t, 8*time.Second)
	must(t, r.Redis.Stop())
	frozenAt := time.Now()
	frozen := r.rate(t, 20*time.Second)
	must(t, r.Redis.Cont())
	thawed := time.Now()
	pause(t, 3*time.Second)
	for _, link := range []string{system.ProducerRedis, system.WorkerRedis, system.ResultsRedis} {
		r.Links.Set(link, proxy.Fault{Latency: 250 * time.Millisecond}) // each way
	}
	slowAt := time.Now()
	slow := r.rate(t, 10*time.Second)
	r.Links.Heal()
	healed := time.Now()
	v := tr.verdict(t, 3*time.Minute)
	written := r.written(t)
	asleep, late := tr.lag(written, frozenAt, thawed), tr.lag(written, slowAt, healed)
	report.Row(t, report.Result{
		Fault: "F8", What: "Redis is frozen for 20 s, then 500 ms away for 10 s",
		Target: "throughput >= 80 % of the baseline; SSE terminals <= 1 s after Kafka",
		Measured: fmt.Sprintf("%.0f/s before, %.0f/s frozen (%.0f %%), %.0f/s slow (%.0f %%); terminals on SSE after at most %s frozen (%d), %s slow (%d); median %s and %s",
			base, frozen, 100*frozen/base, slow, 100*slow/base, seconds(quantile(asleep, 1)), len(asleep), seconds(quantile(late, 1)), len(late),
			seconds(quantile(asleep, 0.5)), seconds(quantile(late, 0.5))),
		OK: frozen >= share*base && slow >= share*base && quantile(asleep, 1) <= terminals && quantile(late, 1) <= terminals &&
			len(asleep) > 0 && len(late) > 0 && len(v.WrongFate) == 0,
		Broken: v.Broken(), Took: time.Since(tr.began),
	})
}

// written is when each task's visible terminal was written to Kafka.
func (r *rig) written(t *testing.T) map[task.ID]time.Time {
	t.Helper()
	records, err := topiclog.ReadAll(t.Context(), r.Kafka.Addrs, topic.Results)
	must(t, err)
	out := map[task.ID]time.Time{}
	for _, rec := range records {
		id := task.ID(rec.Key)
		if _, known := out[id]; !known { // nothing is reopened here: the first counts
			out[id] = rec.Timestamp
		}
	}
	return out
}

// lag is how long after its writing each terminal of a span of time was seen on
// a stream.
func (tr *trial) lag(written map[task.ID]time.Time, from, to time.Time) []time.Duration {
	var out []time.Duration
	for _, e := range tr.seen(terminalOf) {
		if at := written[e.TaskID]; at.After(from) && at.Before(to) {
			out = append(out, e.at.Sub(at))
		}
	}
	return out
}

// tokensAfter returns the pieces that were written and seen after a moment.
func (tr *trial) tokensAfter(at time.Time) []seenEvent {
	return tr.seen(func(e seenEvent) bool { return e.Type == event.Delta && e.At.After(at) })
}

// acceptedBetween counts the submits begun and accepted in a span of time, and
// tells the slowest.
func (tr *trial) acceptedBetween(from, to time.Time) (n int, slowest time.Duration) {
	for _, e := range tr.book.Entries() {
		if e.Answer == ledger.Accepted && e.Asked.After(from) && e.Acked.Before(to) {
			n++
			slowest = max(slowest, e.Acked.Sub(e.Asked))
		}
	}
	return n, slowest
}

// endedIDs are the tasks that somebody saw ended.
func (tr *trial) endedIDs() []ledger.Entry {
	var out []ledger.Entry
	for _, e := range tr.book.Entries() {
		if e.Answer == ledger.Accepted && !tr.book.EndedAt(e.ID).IsZero() {
			out = append(out, e)
		}
	}
	return out
}

// showEnded asks every results service for the tasks, and reports whether each
// is told to have ended.
func (r *rig) showEnded(t *testing.T, entries []ledger.Entry) bool {
	t.Helper()
	for _, p := range r.Results {
		for tenant, key := range r.Doors.Keys {
			cl, err := client.New(client.Config{API: p.URL, Key: key})
			must(t, err)
			defer cl.Close()
			for _, e := range entries {
				if e.Tenant == tenant && !shownEnded(t, cl, e) {
					return false
				}
			}
		}
	}
	return true
}

// shownEnded asks once. Silence and a 503 are what may be while Redis is away.
func shownEnded(t *testing.T, cl *client.Client, e ledger.Entry) bool {
	t.Helper()
	v, err := cl.Task(t.Context(), e.ID, 0)
	if err != nil && client.StatusOf(err) != http.StatusServiceUnavailable && !isUnreachable(err) {
		t.Errorf("task %s: %v", e.ID, err)
	}
	return err == nil && v.Status.Terminal()
}

func isUnreachable(err error) bool {
	_, ok := errors.AsType[*client.UnreachableError](err)
	return ok
}

// redis speaks to the server around the links.
func (r *rig) redis(t *testing.T) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(r.Redis.URL)
	must(t, err)
	cl := redis.NewClient(opts)
	closing(t, cl.Close)
	return cl
}
