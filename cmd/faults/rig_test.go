//go:build faults

package faults_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/cmd/faults/proxy"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/task"
)

// TestRig shows that the machine itself works: everything can be wronged and
// everything heals.
func TestRig(t *testing.T) {
	r := openRig(t, rigParams{Settings: tuned(), Replica: true})
	run := func(t *testing.T, text string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got, err := r.Client().Submit(ctx, prompt(text), "")
		must(t, err)
		end, err := r.Client().Wait(ctx, got.TaskID)
		if err != nil || end.Status != task.Succeeded {
			t.Fatalf("%s: %s, %v", text, end.Status, err)
		}
	}
	run(t, "before")
	for _, link := range []string{
		system.ProducerKafka, system.WorkerKafka, system.ResultsKafka, system.ProducerRedis, system.WorkerRedis,
		system.ResultsRedis, system.WorkerBackend, system.ClientProducer, system.ClientResults,
	} {
		if list := r.Links.Of(link); len(list) != 1 || link != system.WorkerBackend && len(list[0].Conns()) == 0 {
			t.Errorf("nothing goes over the link %s", link)
		}
		r.Links.Set(link, proxy.Fault{Latency: time.Millisecond})
	}
	run(t, "with latency")
	r.Links.Heal()
	for _, p := range []*system.Process{r.Workers[0], r.Results[0], r.Producers[0]} {
		must(t, p.Kill9())
		must(t, p.Restart(t.Context()))
	}
	run(t, "all services were killed")
	must(t, r.Workers[0].Stop())
	must(t, r.Workers[0].Cont())
	must(t, r.Kafka.Brokers[0].Kill9())
	must(t, r.Kafka.Brokers[0].Restart(t.Context()))
	run(t, "the broker was killed")
	must(t, r.Redis.Promote(t.Context()))
	run(t, "the replica was promoted")
	must(t, r.Redis.Kill9())
	must(t, r.Redis.Restart(t.Context()))
	must(t, writable(t.Context(), r.Redis.URL))
	run(t, "redis is empty")
}

// writable says whether a Redis takes writes: one that follows another does not.
func writable(ctx context.Context, url string) error {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	cl := redis.NewClient(opts)
	defer cl.Close()
	return cl.Set(ctx, "rig", "1", time.Second).Err()
}
