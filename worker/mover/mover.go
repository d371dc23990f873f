// Package mover takes records out of the retry tiers: each waits there for the
// tier's delay by the brokers' clock and then goes back to the lane it came
// from.
//
// Delivery promise: at least once. A record is settled in its tier only after
// the broker acknowledged it elsewhere. One that cannot be delivered is appended
// to its tier again, so that it does not hold up those behind it.
package mover

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/consume"
)

// Publisher is what a mover writes with; tasktopic.Publisher is one.
type Publisher interface {
	RepublishAsync(rec wire.Record, t *task.Task, to string, pr task.Progress, done func(tasktopic.Ack, error))
	DeadLetter(ctx context.Context, original wire.Record, l deadletter.Letter) (tasktopic.Ack, error)
	Terminal(ctx context.Context, t *terminal.Terminal) (tasktopic.Ack, error)
	BrokerNow() time.Time
}

// Params are the parts a Mover works with.
type Params struct {
	Kafka     kafkaclient.Config
	Publisher Publisher
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Build     string // in dead letters
}

// Bounds of one partition's waiting records. Those behind them are not read
// until half of these have gone.
const (
	laneRecords = 128
	laneBytes   = 2 << 20
	pollRecords = 256
)

// Mover is one member of the movers' consumer group.
type Mover struct {
	p     Params
	log   *slog.Logger
	moved *prometheus.CounterVec
	group *consume.Group
	delay map[string]time.Duration // by topic
	work  sync.WaitGroup           // burials

	closing sync.Once
	closed  error

	mu   sync.Mutex
	mail []*letter // handed over, not yet seen by the loop
	wake chan struct{}

	queue queue // owned by the loop
}

// letter is one waiting record.
type letter struct {
	d        *consume.Delivery
	due      time.Time // by the brokers' clock
	failures int
}

// Open makes the mover's client. It does no I/O; Run joins the group.
func Open(p Params) (*Mover, error) {
	m := &Mover{
		p: p, log: p.Log.With("group", topic.RetryGroup), delay: map[string]time.Duration{}, wake: make(chan struct{}, 1),
		moved: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_moved_records_total",
			Help: "Records taken out of retry tiers: returned to their lane, reappended to their tier, or buried.",
		}, []string{"outcome"}),
	}
	for _, o := range []string{"returned", "reappended", "buried"} {
		m.moved.WithLabelValues(o)
	}
	topics := make([]string, 0, 4)
	for _, t := range topic.Tiers() {
		m.delay[t.Topic()] = t.Delay
		topics = append(topics, t.Topic())
	}
	var err error
	m.group, err = consume.Open(p.Kafka, consume.Params{
		Group: topic.RetryGroup, Topics: topics, PollRecords: pollRecords,
		MaxRecords: math.MaxInt, MaxBytes: math.MaxInt64, // the lanes' own bounds hold; one slow tier must not stop the others
		LaneRecords: laneRecords, LaneBytes: laneBytes,
	}, m, p.Log, p.Metrics)
	if err != nil {
		return nil, fmt.Errorf("open mover: %w", err)
	}
	if err := p.Metrics.Register(m.moved); err != nil {
		return nil, fmt.Errorf("open mover: %w", err)
	}
	return m, nil
}

// Joined reports whether the mover is in its group.
func (m *Mover) Joined() bool { return m.group.Joined() }

// Deliver implements consume.Sink.
func (m *Mover) Deliver(ds []*consume.Delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range ds {
		m.mail = append(m.mail, &letter{d: d, due: d.Timestamp.Add(m.delay[d.Topic])})
	}
	m.nudge()
}

// Revoked implements consume.Sink. What was taken away is dropped when due.
func (m *Mover) Revoked() {}

func (m *Mover) nudge() {
	select {
	case m.wake <- struct{}{}:
	default: // the loop will look at everything anyway
	}
}

// Run moves records until ctx is done, then commits and leaves the group.
func (m *Mover) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	var pollErr error
	polls, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { defer stop(); pollErr = m.group.Poll(polls) })
	wg.Go(func() { m.group.CommitLoop(polls) })
	m.loop(polls)
	wg.Wait()
	m.work.Wait()
	if err := m.Close(context.WithoutCancel(ctx)); err != nil {
		m.log.Warn("mover did not leave cleanly: some records are moved again", "err", err)
	}
	return pollErr
}

// Close commits and leaves the group. Only a Mover that is not run needs it; a
// second call does nothing.
func (m *Mover) Close(ctx context.Context) error {
	m.closing.Do(func() {
		m.p.Metrics.Unregister(m.moved)
		end, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		m.closed = m.group.Close(end)
	})
	return m.closed
}

func (m *Mover) loop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		m.take()
		now := m.p.Publisher.BrokerNow()
		for len(m.queue) > 0 && !m.queue[0].due.After(now) {
			m.move(ctx, heap.Pop(&m.queue).(*letter))
		}
		wait := time.Hour
		if len(m.queue) > 0 {
			wait = m.queue[0].due.Sub(now)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-timer.C:
		}
	}
}

func (m *Mover) take() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.mail {
		heap.Push(&m.queue, l)
	}
	m.mail = nil
}

// tries is how often a lane is tried before the record goes to its tier again.
const tries = 3

// move publishes one due record, in its lane or, once that has failed, in its
// tier.
func (m *Mover) move(ctx context.Context, l *letter) {
	if l.d.Revoked() {
		l.d.Release()
		return
	}
	t, p, err := wire.DecodeTask(l.d.Record)
	if err != nil {
		dead, end := attempt.Undecodable(l.d.Record, m.p.Publisher.BrokerNow())
		m.bury(ctx, l.d, dead, end)
		return
	}
	if why := unfit(p); why != nil {
		now := m.p.Publisher.BrokerNow()
		m.bury(ctx, l.d, attempt.Letter(t, p, l.d.Record, why, now), attempt.TerminalOf(t, p, task.Dead, why, now))
		return
	}
	to, outcome := p.ReturnTopic, "returned"
	if l.failures >= tries && l.failures%2 == 1 { // every other time, for both may be away
		to, outcome = l.d.Topic, "reappended"
	} else {
		p.ReturnTopic = ""
	}
	p.Hop++
	m.p.Publisher.RepublishAsync(l.d.Record, t, to, p, func(_ tasktopic.Ack, err error) {
		if err != nil {
			m.later(l, to, err)
			return
		}
		m.moved.WithLabelValues(outcome).Inc()
		l.d.Settle()
	})
}

// unfit says why a task cannot be returned anywhere.
func unfit(p task.Progress) error {
	if _, _, ok := topic.ParseTasks(p.ReturnTopic); !ok {
		return fault.New(fault.Internal, "the record in a retry tier does not say which lane it belongs to")
	}
	if p.Hop >= event.MaxHop {
		return fault.New(fault.Internal, "the task was handed on too often")
	}
	return nil
}

// later puts a record that could not be written back to wait a little.
func (m *Mover) later(l *letter, to string, err error) {
	if l.failures++; l.failures == tries {
		m.log.Warn("record cannot be returned: it goes to its tier again", "topic", to, "offset", l.d.Offset, "err", err)
	}
	l.due = m.p.Publisher.BrokerNow().Add(min(time.Second<<min(l.failures-1, 3), 5*time.Second))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mail = append(m.mail, l)
	m.nudge()
}

// bury gives a record up: the dead letter, then the terminal if the record says
// whose it is. It goes on until both are written or the mover stops; then the
// next owner buries it.
func (m *Mover) bury(ctx context.Context, d *consume.Delivery, dead deadletter.Letter, end *terminal.Terminal) {
	dead.Build = m.p.Build
	dead.Origin = deadletter.Origin{Topic: d.Topic, Partition: d.Partition, Offset: d.Offset, Timestamp: d.Timestamp, Group: topic.RetryGroup}
	m.log.Warn("record in a retry tier is given up", "topic", d.Topic, "partition", d.Partition, "offset", d.Offset, "err", dead.Message)
	m.work.Go(func() {
		if !m.insist(ctx, func() error { _, err := m.p.Publisher.DeadLetter(ctx, d.Record, dead); return err }) {
			return
		}
		if end != nil && !m.insist(ctx, func() error { _, err := m.p.Publisher.Terminal(ctx, end); return err }) {
			return
		}
		m.moved.WithLabelValues("buried").Inc()
		d.Settle()
	})
}

func (m *Mover) insist(ctx context.Context, write func() error) bool {
	for pause := 100 * time.Millisecond; write() != nil; pause = min(2*pause, 5*time.Second) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
	return true
}

// queue is a heap of waiting records, the first due first.
type queue []*letter

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(*letter)) }

func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
