package sim_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/devstack"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer"
	"github.com/penstock/penstock/resultsvc"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker"
	"github.com/penstock/penstock/worker/backend"
)

const (
	pool       = "default"
	chatModel  = "sim-chat"
	embedModel = "sim-embed"
	adminToken = "operator"
)

// topics is what all services are told alike.
var topics = tasktopic.Config{Partitions: 3, Retention: 6 * time.Hour, MaxTaskAge: 3 * time.Hour, ResultTTL: time.Hour}

// world is the whole system in one bubble.
type world struct {
	t        *testing.T
	seed     uint64
	log      *slog.Logger
	net      kfake.VirtualNetwork
	broker   *devstack.Broker
	store    *devstack.Store
	models   *catalog.Catalog
	engine   *engine
	kafka    kafkaclient.Config // the checker's own way, in fair weather
	cl       *kgo.Client
	http     *http.Client
	commits  commits
	receiver *receiver
	wg       sync.WaitGroup // lives of instances, and the store's clock

	producers, workers, results []*instance
	stopStore                   context.CancelFunc
}

func openWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{t: t, seed: seed, log: slog.New(slog.DiscardHandler), engine: newEngine(seed)}
	if os.Getenv("PENSTOCK_SIM_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	var err error
	w.broker, err = devstack.OpenBroker(devstack.BrokerParams{Net: &w.net})
	w.must(err)
	w.store, err = devstack.OpenStore(devstack.StoreParams{Virtual: true})
	w.must(err)
	storing, stop := context.WithCancel(context.Background())
	w.stopStore = stop
	w.wg.Go(func() { w.store.Run(storing) })
	w.http = &http.Client{Transport: &http.Transport{DialContext: w.net.DialContext, MaxIdleConnsPerHost: 64, DisableCompression: true}}
	w.models = &catalog.Catalog{
		Models: []catalog.Model{
			{ID: chatModel, Pool: pool, Kinds: []task.Kind{task.Chat, task.Completion}},
			{ID: embedModel, Pool: pool, Kinds: []task.Kind{task.Embedding}},
		},
		Pools: []catalog.Pool{{
			Name: pool, Batch: catalog.Batch{MaxTasks: 8, MaxDelay: 20 * time.Millisecond},
			Backends: []catalog.Backend{{Name: "sim", URL: "sim://", Concurrency: 16}},
		}},
	}
	w.models.FillDefaults()
	w.must(w.models.Validate())
	w.openTopics()
	w.watchCommits()
	w.openReceiver()
	for i := range 2 {
		w.producers = append(w.producers, &instance{w: w, name: fmt.Sprint("producer-", i), port: 8000 + i, open: openProducer})
		w.results = append(w.results, &instance{w: w, name: fmt.Sprint("results-", i), port: 8100 + i, open: openResults})
	}
	for i := range 3 { // the last comes and goes
		w.workers = append(w.workers, &instance{w: w, name: fmt.Sprint("worker-", i), port: 8200 + i, open: openWorker})
	}
	r := rand.New(rand.NewPCG(seed, 2))
	for _, i := range w.all() {
		i.kafka.usual, i.redis.usual = between(r, 0, 4*time.Millisecond), between(r, 0, 4*time.Millisecond)
		i.hooks.usual = i.kafka.usual
	}
	for _, i := range w.residents() {
		i.start()
	}
	return w
}

// residents are the instances that run in fair weather.
func (w *world) residents() (out []*instance) {
	out = append(out, w.producers...)
	out = append(out, w.results...)
	return append(out, w.workers[:2]...)
}

func (w *world) all() []*instance { return append(w.residents(), w.workers[2]) }

// openTopics makes the topics of the plan, all of them with the broker's time on
// each record: the checker asks what was in the log when.
func (w *world) openTopics() {
	w.kafka = kafkaclient.Config{Brokers: w.broker.Addrs(), ClientID: "checker", Dial: w.broker.Dial()}
	var err error
	w.cl, err = kafkaclient.New(w.kafka, w.log, kafkaclient.ProducerOpts(1<<20)...)
	w.must(err)
	plan, err := topic.Plan(topic.Params{Partitions: topics.Partitions, Replication: 1, Retention: topics.Retention})
	w.must(err)
	for i := range plan {
		plan[i].Config["message.timestamp.type"] = "LogAppendTime"
	}
	w.must(kafkaclient.EnsureTopics(w.t.Context(), w.cl, plan, w.log))
}

func openProducer(ctx context.Context, l *life) (service, error) {
	c := producer.DefaultConfig()
	c.Kafka, c.Redis, c.TopicConfig.Config = l.kafkaConfig(), l.redisConfig(), topics
	c.WebhookAllowPrivate = true
	s, err := producer.Open(ctx, c, producer.Deps{Log: l.log, Registry: l.reg, Catalog: l.instance.w.models})
	if err != nil {
		return service{}, err
	}
	s.Register(l.server.Echo())
	return service{run: s.Run, drain: s.Drain}, nil
}

func openResults(ctx context.Context, l *life) (service, error) {
	c := resultsvc.DefaultConfig()
	c.Kafka, c.Redis, c.TopicConfig.Config = l.kafkaConfig(), l.redisConfig(), topics
	c.StreamDrain, c.WebhookAllowPrivate = time.Second, true
	s, err := resultsvc.Open(ctx, c, resultsvc.Deps{Log: l.log, Registry: l.reg, WebhookDial: l.hooks.over(l.instance.w.net.DialContext)})
	if err != nil {
		return service{}, err
	}
	s.Register(l.server.Echo())
	return service{run: s.Run, drain: s.Drain}, nil
}

func openWorker(ctx context.Context, l *life) (service, error) {
	c := worker.DefaultConfig()
	c.Kafka, c.Redis, c.TopicConfig.Config = l.kafkaConfig(), l.redisConfig(), topics
	c.Name, c.AdminToken = l.instance.name, adminToken
	c.AttemptTimeout, c.Idle, c.DrainGrace = 10*time.Second, 5*time.Second, 5*time.Second
	w, err := worker.Open(ctx, c, worker.Deps{
		Log: l.log, Registry: l.reg, Catalog: l.instance.w.models,
		BackendFunc: func(catalog.Pool, catalog.Backend) (backend.Backend, error) { return l.instance.w.engine, nil },
	})
	if err != nil {
		return service{}, err
	}
	l.server.Mount("/admin/v1/*", w.Admin())
	return service{run: w.Run}, nil
}

// client talks to instances of the draw's choice, as behind a load balancer
// that does not know who is well.
func (w *world) client(r *rand.Rand) *client.Client {
	cl, err := client.New(client.Config{
		API:     w.producers[r.IntN(len(w.producers))].url(),
		Results: w.results[r.IntN(len(w.results))].url(),
		Admin:   w.workers[r.IntN(2)].url(),
		Key:     adminToken, HTTP: w.http,
	})
	w.must(err)
	return cl
}

// clientOf reads at one instance.
func (w *world) clientOf(results *instance) *client.Client {
	cl, err := client.New(client.Config{API: results.url(), HTTP: w.http})
	w.must(err)
	return cl
}

// heal ends all weather and brings back who is missing.
func (w *world) heal() {
	for _, i := range w.all() {
		for _, weather := range []*weather{&i.kafka, &i.redis, &i.hooks} {
			weather.refuse(false)
			weather.stall(false)
			weather.slow(0)
		}
	}
	w.engine.set(func(e *engine) { e.sick, e.away, e.refuse = false, false, false })
	w.workers[2].stop()
	for _, i := range w.residents() {
		i.start()
	}
}

// settled waits until no group has anything left to do.
func (w *world) settled() {
	adm := kadm.NewClient(w.cl)
	var left int64
	var wedged wedge
	for deadline, quiet := time.Now().Add(10*time.Minute), 0; quiet < 2; {
		wedged.mend(w, adm)
		lags, err := adm.Lag(w.t.Context(), topic.WorkerGroup(pool), topic.RetryGroup)
		w.must(err)
		left = 0
		lags.Each(func(l kadm.DescribedGroupLag) { left += l.Lag.Total() })
		if quiet++; left > 0 {
			quiet = 0
		}
		if time.Now().After(deadline) {
			w.fault("I1", "%d records are not settled ten minutes after the last fault", left)
			return
		}
		time.Sleep(2 * time.Second)
	}
}

func (w *world) close() {
	var stops sync.WaitGroup
	for _, i := range w.all() {
		stops.Go(i.stop)
	}
	stops.Wait()
	w.stopStore()
	w.receiver.close()
	w.http.CloseIdleConnections()
	w.wg.Wait()
	w.cl.Close()
	w.store.Close()
	if err := w.broker.Close(); err != nil {
		w.fault("world", "close broker: %v", err)
	}
}

// fault is a finding: a promise that was broken.
func (w *world) fault(promise, format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("seed %d: %s: "+format, append([]any{w.seed, promise}, args...)...)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
}
