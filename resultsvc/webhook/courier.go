package webhook

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
)

// Publisher writes steps and knows the brokers' time: *tasktopic.Publisher.
type Publisher interface {
	Webhook(ctx context.Context, w *webhook.Record) (tasktopic.Ack, error)
	WebhookAsync(w *webhook.Record, done func(tasktopic.Ack, error))
	BrokerNow() time.Time
}

// Logs shows owners of tasks what became of their webhooks: *taskstore.Store.
// All of it may be lost, and is then written again.
type Logs interface {
	PutWebhooks(ctx context.Context, logs []taskstore.WebhookLog) error
	// WebhooksLost returns which of the partitions have lost their logs, or
	// never had them.
	WebhooksLost(ctx context.Context, partitions []int32) ([]int32, error)
	// WebhooksRestored says that a partition has its logs again.
	WebhooksRestored(ctx context.Context, partition int32) error
}

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Policy    callback.Policy
	StatusURL func(task.ID) string          // where a task can be read; default its path
	Gone      func(task.ID, time.Time) bool // whether a task's results count no longer; default never

	Timeout       time.Duration // of one attempt; default 15 s
	Concurrency   int           // attempts at once; default 64
	PerHost       int           // of these, to one host and port; default 8
	MaxEntries    int           // tasks and batches whose webhooks are kept; default 1,000,000
	MaxDeliveries int           // deliveries that are not settled; default 50,000
	MaxBytes      int           // of their events; default 256 MiB
	Check         time.Duration // between commits, and looks at the bounds; default 1 s
	Grace         time.Duration // for attempts in flight at the end; default 3 s

	// For tests: the way to receivers, and who vouches for them. Default: a dialer
	// that the policy controls, and the system's authorities.
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	RootCAs *x509.CertPool
}

func (p Params) withDefaults() Params {
	number := func(of *int, otherwise int) {
		if *of == 0 {
			*of = otherwise
		}
	}
	duration := func(of *time.Duration, otherwise time.Duration) {
		if *of == 0 {
			*of = otherwise
		}
	}
	number(&p.Concurrency, 64)
	number(&p.PerHost, 8)
	number(&p.MaxEntries, 1_000_000)
	number(&p.MaxDeliveries, 50_000)
	number(&p.MaxBytes, 256<<20)
	duration(&p.Timeout, 15*time.Second)
	duration(&p.Check, time.Second)
	duration(&p.Grace, 3*time.Second)
	if p.StatusURL == nil {
		p.StatusURL = func(id task.ID) string { return "/v1/tasks/" + string(id) }
	}
	if p.Gone == nil {
		p.Gone = func(task.ID, time.Time) bool { return false }
	}
	return p
}

// Deps are what a Courier works with.
type Deps struct {
	Publisher Publisher
	Logs      Logs
	Keys      *callback.Keys
	Kafka     kafkaclient.Config
	Log       *slog.Logger
	Registry  prometheus.Registerer
}

// Courier is one member of the group that calls receivers.
type Courier struct {
	d       Deps
	p       Params
	sender  *sender
	metrics *metrics

	changed chan struct{} // 1 slot: somebody may be called now
	results *kgo.Client   // reads the results, and answers what is asked of the cluster; set by Run

	mu      sync.Mutex // guards all below, and what they hold
	topicID [16]byte   // of the results, as fetched
	owned   map[int32]*partition
	room    *room
	queue   queue // deliveries that wait for their time
	hosts   *hosts
	read    chan struct{}                   // closed and replaced whenever a ledger moved, or a partition left
	views   map[string]taskstore.WebhookLog // to be shown to their owners
}

// New returns a courier; it calls nobody before Run.
func New(d Deps, p Params) *Courier {
	p = p.withDefaults()
	c := &Courier{
		d: d, p: p, sender: newSender(p, d.Keys, d.Log), metrics: newMetrics(d.Registry),
		changed: make(chan struct{}, 1), owned: map[int32]*partition{}, hosts: newHosts(p),
		read: make(chan struct{}), views: map[string]taskstore.WebhookLog{},
	}
	c.room = &room{maxEntries: p.MaxEntries, refuse: c.refused}
	return c
}

// Run joins the group and calls receivers until ctx is done. Then it commits
// once more and leaves. It is for one call.
func (c *Courier) Run(ctx context.Context) error {
	results, err := c.scanner()
	if err != nil {
		return err
	}
	defer results.Close()
	c.results = results
	group, err := kafkaclient.New(c.d.Kafka, c.d.Log, append(kafkaclient.GroupOpts(topic.WebhookGroup, topic.Webhooks), c.opts()...)...)
	if err != nil {
		return err
	}
	defer group.Close() // leaves the group
	c.work(ctx, group)
	return nil
}

// scanner returns a client that is given partitions to read.
func (c *Courier) scanner() (*kgo.Client, error) {
	return kafkaclient.New(c.d.Kafka, c.d.Log, kafkaclient.ScanOpts()...)
}

func (c *Courier) work(ctx context.Context, group *kgo.Client) {
	var wg sync.WaitGroup
	for _, loop := range []func(context.Context){c.matchResults, c.dispatch, c.keepBounds, c.showLogs, c.keepLogs} {
		wg.Go(func() { loop(ctx) })
	}
	wg.Go(func() { c.commitLoop(ctx, group) })
	c.foldLog(ctx, group)
	wg.Wait()
	c.commit(context.WithoutCancel(ctx), group)
	c.sender.client.CloseIdleConnections()
}

// wake has the dispatcher look again.
func (c *Courier) wake() {
	select {
	case c.changed <- struct{}{}:
	default: // it will look anyway
	}
}

// tell wakes whoever waits for a ledger to move. The lock is held.
func (c *Courier) tell() {
	close(c.read)
	c.read = make(chan struct{})
}

// refused notes a registration there was no room for. The lock is held.
func (c *Courier) refused() {
	c.metrics.refused.Inc()
	c.d.Log.Error("no room for a webhook: its task ends untold unless another process takes the partition", "entries", c.room.entries)
}

// backoff is the pause before the n-th repeat of what Kafka did not take.
func backoff(n int) time.Duration { return min(50*time.Millisecond<<min(n, 8), 2*time.Second) }
