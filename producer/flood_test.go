package producer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/producer"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

// flood is two ingresses on one Kafka and one Redis.
type flood struct {
	*bundle
	nodes      [2]*bundle
	registries []*prometheus.Registry
	brokers    []string
}

// newFlood works on the servers that the environment names, if the size asks
// for it.
func newFlood(t *testing.T, redisUp bool) *flood {
	t.Helper()
	f := &flood{}
	away := miniredis.RunT(t)
	away.SetError("ERR out of order")
	change := func(c *producer.Config, d *producer.Deps) {
		registry := prometheus.NewRegistry()
		d.Registry, f.registries = registry, append(f.registries, registry)
		if floodOnServers {
			c.Kafka.Brokers = []string{os.Getenv("PENSTOCK_TEST_KAFKA")}
			c.Redis.URL = config.Secret(strings.TrimSuffix(os.Getenv("PENSTOCK_TEST_REDIS"), "/0") + "/8")
		}
		if !redisUp {
			c.Redis.URL = config.Secret("redis://" + away.Addr())
		}
		f.brokers = c.Kafka.Brokers
	}
	if floodOnServers && (os.Getenv("PENSTOCK_TEST_KAFKA") == "" || os.Getenv("PENSTOCK_TEST_REDIS") == "") {
		t.Skip("PENSTOCK_TEST_KAFKA and PENSTOCK_TEST_REDIS are not set")
	}
	f.bundle = setup(t, change)
	f.nodes = [2]*bundle{f.bundle, {t: t, url: f.another(change)}}
	return f
}

// another starts the second ingress and returns its address.
func (f *flood) another(change func(*producer.Config, *producer.Deps)) string {
	f.t.Helper()
	cfg, deps := f.config()
	change(&cfg, &deps)
	server := httpserver.New(cfg.HTTPConfig.Config, deps.Log, deps.Registry)
	s, err := producer.Open(f.t.Context(), cfg, deps)
	if err != nil {
		f.t.Fatal(err)
	}
	s.Register(server.Echo())
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			f.t.Error(err)
		}
	})
	web := httptest.NewServer(server.Echo())
	f.t.Cleanup(func() { web.Close(); stop(); wg.Wait() })
	return web.URL
}

// submit sends one key's submits at once, to both nodes, and returns their id.
func (f *flood) submit(key string, callers int) task.ID {
	ids := make([]task.ID, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			var answer struct{ Data api.Accepted }
			a := f.nodes[i%2].post("/v1/inference", hello, "Idempotency-Key", key)
			if err := json.Unmarshal(a.body, &answer); err != nil || a.status != http.StatusAccepted {
				f.t.Errorf("%d %s", a.status, a.body)
			}
			ids[i] = answer.Data.TaskID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			f.t.Errorf("key %s has the ids %s and %s", key, ids[0], id)
		}
	}
	return ids[0]
}

// unanswered is how many questions about keys Redis did not answer in time.
func (f *flood) unanswered() (n float64) {
	f.t.Helper()
	for _, registry := range f.registries {
		families, err := registry.Gather()
		if err != nil {
			f.t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "penstock_producer_idempotency_failures_total" {
				n += family.GetMetric()[0].GetCounter().GetValue()
			}
		}
	}
	return n
}

// quiet is a little more than a node leaves Redis alone after it did not answer.
const quiet = 1100 * time.Millisecond

// remembered is submit that also says whether Redis answered all that was asked:
// on a slow machine it may not, and then repeats are written.
func (f *flood) remembered(key string, callers int) (id task.ID, whole bool) {
	before := f.unanswered()
	id = f.submit(key, callers)
	if f.unanswered() == before {
		return id, true
	}
	<-time.After(quiet)
	return id, false
}

// written counts the records of tasks, and checks that those of one task lie in
// one partition: so one worker meets them all and runs the task once, and the
// first terminal is the same for every reader.
func (f *flood) written(ids map[task.ID]bool) map[task.ID]int {
	f.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(f.brokers...), kgo.ConsumeTopics(topic.Tasks("default", task.Standard)), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		f.t.Fatal(err)
	}
	defer cl.Close()
	at, records := map[task.ID]int32{}, map[task.ID]int{}
	for {
		ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Second)
		fetches := cl.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			break
		}
		for _, r := range fetches.Records() {
			id := task.ID(r.Key)
			if !ids[id] {
				continue
			}
			records[id]++
			if p, seen := at[id]; seen && p != r.Partition {
				f.t.Errorf("task %s lies in partitions %d and %d", id, p, r.Partition)
			}
			at[id] = r.Partition
		}
	}
	if len(at) != len(ids) {
		f.t.Errorf("%d of %d tasks are in the log", len(at), len(ids))
	}
	return records
}

func TestAFloodOfIdenticalSubmitsIsOneTaskPerKey(t *testing.T) {
	for name, redisUp := range map[string]bool{"with Redis": true, "without Redis": false} {
		t.Run(name, func(t *testing.T) {
			f := newFlood(t, redisUp)
			ids := map[task.ID]bool{}
			var sure []task.ID
			run := time.Now().UnixNano()
			for k := range floodKeys {
				key := fmt.Sprintf("%d-%d", run, k)
				if !redisUp {
					ids[f.submit(key, floodCallers)] = true
					continue
				}
				id, whole := f.remembered(key, floodCallers)
				ids[id] = true
				if whole {
					sure = append(sure, id)
				}
			}
			if len(ids) != floodKeys {
				t.Errorf("%d tasks for %d keys", len(ids), floodKeys)
			}
			if redisUp && len(sure) == 0 {
				t.Error("Redis answered all questions about none of the keys")
			}
			if !redisUp && f.unanswered() == 0 {
				t.Error("the nodes do not count what Redis did not answer")
			}
			records := f.written(ids)
			for _, id := range sure {
				if records[id] > len(f.nodes) {
					t.Errorf("%d records for one key: each node may write one before it hears of the other's", records[id])
				}
			}
			all := 0
			for _, n := range records {
				all += n
			}
			t.Logf("%d keys, %d submits each: %d records, %d keys of which Redis answered all questions", floodKeys, floodCallers, all, len(sure))
		})
	}
}
