//go:build faults

package faults_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// tenants of the rows that keep account: the second reads as a stranger what
// the first owns.
func tenants() []string { return []string{"acme", "zenith"} }

// seen returns the events so far that a test looks for.
func (tr *trial) seen(want func(seenEvent) bool) []seenEvent {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var out []seenEvent
	for _, e := range tr.events {
		if want(e) {
			out = append(out, e)
		}
	}
	return out
}

// terminalOf tells a terminal event.
func terminalOf(e seenEvent) bool { return task.Status(e.Type).Terminal() }

// submitted waits until the whole load was sent.
func (tr *trial) submitted(t *testing.T) {
	t.Helper()
	tr.load.Wait()
	must(t, tr.err)
}

// finished reports whether the whole load was sent.
func (tr *trial) finished() bool {
	select {
	case <-tr.sent:
		return true
	default:
		return false
	}
}

// ended counts the accepted tasks that anybody saw ended, polls being a sample.
func (tr *trial) ended() int { return tr.book.Ended() }

// verdict concludes a load whose fault is over when all of it is sent.
func (tr *trial) verdict(t *testing.T, within time.Duration) outcome {
	t.Helper()
	tr.submitted(t)
	return tr.conclude(t, time.Now(), within)
}

// ends is how far each partition of penstock.results reaches.
func (r *rig) ends(t *testing.T) map[int32]int64 {
	t.Helper()
	ends, err := r.adm.ListEndOffsets(t.Context(), topic.Results)
	if err == nil {
		err = ends.Error()
	}
	must(t, err)
	out := map[int32]int64{}
	ends.Each(func(e kadm.ListedOffset) { out[e.Partition] = e.Offset })
	return out
}

// completed counts the terminals on Kafka.
func (r *rig) completed(t *testing.T) int64 {
	t.Helper()
	var sum int64
	for _, end := range r.ends(t) {
		sum += end
	}
	return sum
}

// rate is how many tasks end per second over a time.
func (r *rig) rate(t *testing.T, over time.Duration) float64 {
	t.Helper()
	began, before := time.Now(), r.completed(t)
	pause(t, over)
	return float64(r.completed(t)-before) / time.Since(began).Seconds()
}

// until waits for a condition that the test needs.
func until(t *testing.T, within time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	took, ok := eventually(t, within, holds)
	if !ok {
		t.Fatalf("not within %s: %s", within, what)
	}
	return took
}

// engine asks an engine's switchboard or its log.
func engine(t *testing.T, p *system.Process, method, path string, body, into any) {
	t.Helper()
	raw, err := json.Marshal(body)
	must(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, bytes.NewReader(raw))
	must(t, err)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	raw, err = io.ReadAll(res.Body)
	must(t, err)
	if res.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %s", method, path, res.Status, raw)
	}
	if into != nil {
		must(t, json.Unmarshal(raw, into))
	}
}

// fault turns a switch on at every engine.
func (r *rig) fault(t *testing.T, rule map[string]any) {
	t.Helper()
	for _, p := range r.Simulators {
		engine(t, p, http.MethodPost, "/sim/faults", rule, nil)
	}
}

// clear turns every switch off.
func (r *rig) clear(t *testing.T) {
	t.Helper()
	for _, p := range r.Simulators {
		engine(t, p, http.MethodDelete, "/sim/faults", nil, nil)
	}
}

// runs is an engine's log: how often each task began there.
func runs(t *testing.T, p *system.Process) map[string]int {
	t.Helper()
	var out simulated.Executions
	engine(t, p, http.MethodGet, "/sim/executions", nil, &out)
	return out.Counts
}

// mine keeps the tasks of one load.
func (tr *trial) mine(counts map[string]int) map[string]int {
	ids := map[string]bool{}
	for _, id := range tr.book.Accepted() {
		ids[string(id)] = true
	}
	out := map[string]int{}
	for id, n := range counts {
		if ids[id] {
			out[id] = n
		}
	}
	return out
}

// executed sums up over all engines: tasks that ran, and runs beyond the first.
func (tr *trial) executed(t *testing.T) (tasks, again int) {
	t.Helper()
	sum := map[string]int{}
	for _, p := range tr.r.Simulators {
		for id, n := range tr.mine(runs(t, p)) {
			sum[id] += n
		}
	}
	for _, n := range sum {
		again += n - 1
	}
	return len(sum), again
}

// scrape reads a metric of a process, summed over its labels.
func (r *rig) scrape(t *testing.T, p *system.Process, name string, labels ...string) float64 {
	t.Helper()
	cl, err := client.New(client.Config{API: r.Admin(p)})
	must(t, err)
	defer cl.Close()
	m, err := cl.Metrics(t.Context(), r.Admin(p))
	must(t, err)
	return m.Sum(name, labels...)
}

// quantile of durations; zero of none.
func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(q*float64(len(list))))]
}

// latencies of the healthy tasks of the load, without those that warmed up: from
// the first submit to the terminal on Kafka, by the clock of this machine.
func (tr *trial) latencies(log *ledger.Log) []time.Duration {
	var out []time.Duration
	for _, e := range tr.book.Entries() {
		if won := log.Ends[e.ID].Ended(); won != nil && e.Mark == "" && !e.Asked.Before(tr.began) {
			out = append(out, won.EndedAt.Sub(e.Asked))
		}
	}
	return out
}

// seconds prints a duration for a row.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
