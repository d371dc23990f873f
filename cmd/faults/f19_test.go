//go:build faults

package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/task"
)

// TestF19Kafka fills the disk under a broker's log. Kafka gives a log directory
// up at its first failed write, and a broker without one ends; so it is started
// again once there is space.
func TestF19Kafka(t *testing.T) {
	t.Parallel()
	const back = 60 * time.Second
	began := time.Now()
	disk := filepath.Join(t.TempDir(), "disk")
	must(t, os.Mkdir(disk, 0o755))
	if err := mountSmall(disk, 64<<20); err != nil {
		report.Row(t, report.Result{
			Fault: "F19", What: "the disk of the only broker is full", Target: "503 not 202; recovers <= 60 s after space",
			Absent: "a small file system cannot be mounted here: " + err.Error(),
		})
		return
	}
	t.Cleanup(func() { must(t, unmount(disk)) })
	settings := tuned()
	settings["log.dirs"] = disk
	r := openRig(t, rigParams{Settings: settings})
	m := r.measure(t, 0)
	free := fill(t, disk)
	if _, ok := eventually(t, 2*time.Minute, func() bool { return !r.Kafka.Brokers[0].Alive() }); !ok {
		t.Fatal("the broker goes on without a disk")
	}
	full := time.Now()
	pause(t, 12*time.Second) // every submit that was waiting has its answer
	space := time.Now()
	free()
	must(t, r.Kafka.Brokers[0].Restart(t.Context()))
	m.recover(t, back)
	recovered := time.Since(space)
	calls := m.ingress.end()
	m.idle.end()
	_, ok := r.drained(t, accepted(calls), time.Minute)
	var slowest time.Duration
	var refusals, others int
	for _, c := range calls {
		slowest = max(slowest, c.ended.Sub(c.began))
		if _, no := refused(c.err); no {
			refusals++
		} else if c.err != nil {
			others++
		}
		if c.err == nil && c.began.After(full) && c.ended.Before(space) {
			t.Errorf("a submit was accepted while there was no disk")
		}
	}
	report.Row(t, report.Result{
		Fault: "F19", What: "the disk of the only broker is full, then has space again",
		Target: "503 not 202; no hang > 15 s; recovers <= 60 s after space",
		Measured: fmt.Sprintf("%d accepted, %d refused with 503, %d otherwise; the slowest answer after %.1f s; submits succeed %.1f s after space",
			len(accepted(calls)), refusals, others, slowest.Seconds(), recovered.Seconds()),
		OK:     ok && others == 0 && refusals > 0 && slowest <= 15*time.Second && recovered <= back,
		Broken: r.broken(t, calls), Took: time.Since(began),
	})
}

// fill takes all the space of a file system and returns how to give it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	must(t, err)
	chunk := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(chunk)
	}
	_ = f.Close() // it is full: that is the point
	return func() { must(t, os.Remove(path)) }
}

// TestF19Redis lets Redis run full: tokens may be lost, results not.
func TestF19Redis(t *testing.T) {
	t.Parallel()
	began := time.Now()
	r := openRig(t, rigParams{
		Tenants: []string{"a", "b"}, Redis: []string{"--maxmemory", "64mb"},
		System: system.Params{Simulate: []string{"--token", "10ms"}},
	})
	tr := r.try(t, ledger.Load{
		Name: "f19", Tasks: 1_200, Tenants: []string{"a", "b"}, Streamed: 0.3, StreamTokens: 40, Seed: 19,
	}, 40)
	cl := redis.NewClient(redisOptions(t, r.Redis.URL))
	t.Cleanup(func() { _ = cl.Close() })
	pause(t, 5*time.Second)
	ballast(t, cl)
	pause(t, 15*time.Second)
	during := rejected(t, cl)
	must(t, cl.Del(t.Context(), "ballast", "ballast-rest").Err())
	out := tr.conclude(t, time.Now(), time.Minute)
	report.Row(t, report.Result{
		Fault: "F19", What: "Redis is full for 15 s (maxmemory, noeviction)",
		Target:   "only tokens suffer; drained <= 60 s after space",
		Measured: fmt.Sprintf("%d commands were refused by Redis; %s; texts %v", during, out.measured(), out.Streams.Texts),
		OK:       out.InTime && during > 0 && out.Ended[task.Succeeded] == out.Accepted, Broken: out.Broken(), Seed: 19, Took: time.Since(began),
	})
}

func redisOptions(t *testing.T, url string) *redis.Options {
	t.Helper()
	opts, err := redis.ParseURL(url)
	must(t, err)
	return opts
}

// ballast fills Redis until it refuses.
func ballast(t *testing.T, cl *redis.Client) {
	t.Helper()
	for range 200 {
		err := cl.Append(t.Context(), "ballast", strings.Repeat("x", 1<<20)).Err()
		if err != nil {
			if !strings.HasPrefix(err.Error(), "OOM") {
				t.Fatal(err)
			}
			fillRest(t, cl)
			return
		}
	}
	t.Fatal("Redis does not run full")
}

// fillRest takes what is left in smaller steps; a string grows by doubling, so
// the last ones go to a list.
func fillRest(t *testing.T, cl *redis.Client) {
	t.Helper()
	for range 5_000 {
		if cl.RPush(t.Context(), "ballast-rest", strings.Repeat("x", 16<<10)).Err() != nil {
			return
		}
	}
	t.Fatal("Redis does not run full")
}

// rejected counts the commands that Redis refused for want of memory.
func rejected(t *testing.T, cl *redis.Client) int {
	t.Helper()
	text, err := cl.Info(t.Context(), "errorstats").Result()
	must(t, err)
	n := 0
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "errorstat_OOM:count="); ok {
			_, err := fmt.Sscan(rest, &n)
			must(t, err)
		}
	}
	return n
}
