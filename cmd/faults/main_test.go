//go:build faults || chaos || soak

// Package faults_test is the ladder's upper half: the whole system as real
// processes on a Kafka and a Redis of its own, with every fault of the matrix
// put upon it. `make test-faults` runs one test for each row, `make test-chaos`
// many at once from a seed, `make soak` hours of both.
package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// binaries is where the services are. Written by TestMain only.
var binaries string

func TestMain(m *testing.M) { os.Exit(setUp(m)) }

func setUp(m *testing.M) int {
	dir, err := os.MkdirTemp("", "penstock-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := system.Build(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if os.Getenv(report.Variable) != "" {
		return m.Run() // whoever named the file prints the table
	}
	return runAndPrint(m, filepath.Join(dir, "rows.jsonl"))
}

func runAndPrint(m *testing.M, rows string) int {
	if err := os.Setenv(report.Variable, rows); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	list, err := report.Read(rows)
	if err == nil && len(list) > 0 {
		err = report.New("", nil, list).Text(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// rigParams say what a test wants to run; the zero value is one of each.
type rigParams struct {
	Brokers  int               // default 1
	Settings map[string]string // of the brokers
	Replica  bool              // Redis has one
	Redis    []string          // settings of the server
	Seed     uint64            // of the links' jitter
	Tenants  []string          // each gets a key; none: everybody is the tenant dev
	Direct   bool              // the services reach each other around the links

	// System counts processes and says what they run; where they are and what
	// they reach is filled in.
	System system.Params
}

// rig is a whole system that a test may do anything to: it shares nothing.
type rig struct {
	*system.System
	Kafka *system.Kafka
	Redis *system.Redis
	Links *system.Links
	Doors ledger.Doors
	Dir   string // catalogs and logs; kept when the test fails

	promoted   bool         // the replica serves; guarded by whoever promotes
	warmed     bool         // a load has been run
	keepEvents bool         // trials remember every event
	adm        *kadm.Client // of ends
}

// tuned are the brokers' settings that find a dead broker in three seconds.
func tuned() map[string]string {
	return map[string]string{"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
}

// starting is held by whoever starts a system: tests run side by side, and a
// broker alone keeps a processor busy until it is ready.
var starting = make(chan struct{}, 1)

// openRig starts everything and stops it with the test.
func openRig(t *testing.T, p rigParams) *rig {
	t.Helper()
	starting <- struct{}{}
	defer func() { <-starting }()
	r := openServers(t, p)
	p.System.Bin, p.System.Dir = binaries, r.Dir
	p.System.Kafka, p.System.Redis = r.Kafka.Addrs, r.Redis.URL
	if !p.Direct {
		p.System.Links = r.Links
	}
	if len(p.Tenants) > 0 {
		path := filepath.Join(r.Dir, "keys.yaml")
		keys, err := ledger.WriteKeys(path, p.Tenants...)
		must(t, err)
		r.Doors.Keys = keys
		p.System.Env = append(p.System.Env, "PENSTOCK_AUTH_KEYS_FILE="+path)
	}
	s, err := system.Start(t.Context(), p.System)
	if err != nil {
		t.Fatal(err)
	}
	r.System, r.adm = s, kadm.NewClient(r.client(t))
	for _, p := range s.Producers {
		r.Doors.Producers = append(r.Doors.Producers, p.URL)
	}
	for _, p := range s.Results {
		r.Doors.Results = append(r.Doors.Results, p.URL)
	}
	t.Cleanup(func() {
		r.Links.Heal()
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// openServers starts Kafka and Redis with their links, and no service.
func openServers(t *testing.T, p rigParams) *rig {
	t.Helper()
	r := &rig{Dir: logs(t), Links: system.NewLinks(p.Seed)}
	closing(t, r.Links.Close)
	var err error
	r.Kafka, err = system.StartKafka(t.Context(), system.KafkaParams{
		Dir: filepath.Join(r.Dir, "kafka"), Brokers: p.Brokers, Settings: p.Settings, Links: r.Links,
	})
	if err != nil {
		t.Fatal(err)
	}
	closing(t, r.Kafka.Close)
	r.Redis, err = system.StartRedis(t.Context(), system.RedisParams{
		Dir: r.Dir, Links: r.Links, Settings: p.Redis, Replica: p.Replica,
	})
	if err != nil {
		t.Fatal(err)
	}
	closing(t, r.Redis.Close)
	return r
}

func closing(t *testing.T, do func() error) {
	t.Helper()
	t.Cleanup(func() {
		if err := do(); err != nil {
			t.Error(err)
		}
	})
}

// logs is a directory that stays when the test fails, without the data.
func logs(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "penstock-faults-logs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
			return
		}
		data, err := filepath.Glob(filepath.Join(dir, "kafka", "data-*"))
		for _, d := range data {
			err = errors.Join(err, os.RemoveAll(d))
		}
		t.Log("logs of the processes:", dir, err)
	})
	return dir
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until a condition holds and returns how long that took;
// false when it did not within the limit.
func eventually(t *testing.T, within time.Duration, holds func() bool) (time.Duration, bool) {
	t.Helper()
	since := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(since) > within {
			return time.Since(since), false
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
	return time.Since(since), true
}

// pause lets a fault last.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// prompt is a task that costs the simulator next to nothing.
func prompt(text string) api.SubmitRequest {
	return api.SubmitRequest{
		Model: "sim-chat", Payload: task.Payload{Text: text}, Params: task.Params{"max_tokens": []byte("8")},
	}
}
