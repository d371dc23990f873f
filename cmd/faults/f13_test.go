//go:build faults

package faults_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/proxy"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/task"
)

// TestF13 wrongs each link in each way under a light load. The three groups of
// links run side by side, each with a system of its own: most of the time
// nothing happens.
func TestF13(t *testing.T) {
	t.Parallel()
	for name, links := range map[string][]string{
		"kafka": {system.ProducerKafka, system.WorkerKafka, system.ResultsKafka},
		"redis": {system.ProducerRedis, system.WorkerRedis, system.ResultsRedis},
		"http":  {system.ClientProducer, system.ClientResults, system.WorkerBackend},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrongLinks(t, name, links)
		})
	}
}

// wrongs are the ways of the matrix, and the one that it forgot: a network that
// holds everything and lets it go late.
func wrongs() []wrong {
	return []wrong{
		{"200 ± 100 ms", proxy.Fault{Latency: 200 * time.Millisecond, Jitter: 100 * time.Millisecond}, 5 * time.Second},
		{"64 KB/s", proxy.Fault{Bandwidth: 64 << 10}, 5 * time.Second},
		{"reset", proxy.Fault{}, time.Second},
		{"black hole", proxy.Fault{BlackHole: true}, 30 * time.Second},
		{"held back", proxy.Fault{Hold: true}, 10 * time.Second},
		{"slow close", proxy.Fault{SlowClose: 5 * time.Second}, 5 * time.Second},
	}
}

type wrong struct {
	name  string
	fault proxy.Fault
	lasts time.Duration
}

func wrongLinks(t *testing.T, name string, links []string) {
	const limit = 15 * time.Second
	began := time.Now()
	r := openRig(t, rigParams{
		Seed: 13, Tenants: []string{"a", "b"}, Settings: tuned(),
		System: system.Params{Producers: 1, Workers: 2, Results: 2, Simulate: []string{"--token", "20ms"}},
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	tr := r.try(t, ledger.Load{
		Name: "f13-" + name, Tasks: 1_600, Tenants: []string{"a", "b"}, Streamed: 0.2, StreamTokens: 60, Seed: 13,
	}, 10)
	api, err := client.New(client.Config{API: r.Producers[0].URL, Results: r.Results[0].URL, Key: r.Doors.Keys["a"]})
	must(t, err)
	t.Cleanup(api.Close)
	var slow []string
	worst := time.Duration(0)
	for _, link := range links {
		for _, w := range wrongs() {
			r.Links.Set(link, w.fault)
			if w.name == "reset" {
				r.Links.Reset(link)
			}
			pause(t, w.lasts)
			r.Links.Set(link, proxy.Fault{})
			healed, ok := eventually(t, time.Minute, func() bool { return goesThrough(ctx, api) })
			worst = max(worst, healed)
			t.Logf("%s, %s: healed in %.1f s", link, w.name, healed.Seconds())
			if !ok || healed > limit {
				slow = append(slow, fmt.Sprintf("%s after %s: %.1f s", link, w.name, healed.Seconds()))
			}
		}
	}
	out := tr.conclude(t, time.Now(), time.Minute)
	measured := fmt.Sprintf("healed within %.1f s; %s", worst.Seconds(), out.measured())
	if len(slow) > 0 {
		measured += "; slow: " + strings.Join(slow, ", ")
	}
	report.Row(t, report.Result{
		Fault: "F13", What: fmt.Sprintf("the links of %s, one after another: latency, bandwidth, reset, black hole, held back, slow close", name),
		Target: "healed <= 15 s, 0 unknowns reported as success", Measured: measured,
		OK: len(slow) == 0 && out.InTime, Broken: out.Broken(), Seed: 13, Took: time.Since(began),
	})
}

// goesThrough runs one task from its submit to its result, by way of both
// services.
func goesThrough(ctx context.Context, api *client.Client) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	accepted, err := api.Submit(ctx, prompt("does it go through?"), "")
	if err != nil {
		return false
	}
	got, err := api.Task(ctx, accepted.TaskID, 4*time.Second)
	return err == nil && got.Status == task.Succeeded
}
