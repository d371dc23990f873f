package sim_test

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

// faults are all that may strike, by name. Each returns once it is over.
var faults = map[string]func(w *world, s strike){
	"worker crashes":    func(w *world, s strike) { crash(pick(w.workers[:2], s), s) },
	"producer crashes":  func(w *world, s strike) { crash(pick(w.producers, s), s) },
	"results crash":     func(w *world, s strike) { crash(pick(w.results, s), s) },
	"worker is rolled":  func(w *world, s strike) { roll(pick(w.workers[:2], s)) },
	"results is rolled": func(w *world, s strike) { roll(pick(w.results, s)) },
	"a worker joins and leaves": func(w *world, s strike) {
		w.workers[2].start()
		time.Sleep(s.last)
		w.workers[2].stop()
	},
	"redis forgets all": func(w *world, _ strike) { w.store.Redis().FlushAll() },
	"redis is away": func(w *world, s strike) {
		for _, i := range w.all() {
			i.redis.refuse(true)
			if l := i.present(); l != nil {
				l.redis.reset()
			}
		}
		time.Sleep(s.last)
		for _, i := range w.all() {
			i.redis.refuse(false)
		}
	},
	"redis stalls": func(w *world, s strike) {
		for _, i := range w.all() {
			i.redis.stall(true)
		}
		time.Sleep(s.last)
		for _, i := range w.all() {
			i.redis.stall(false)
		}
	},
	"connections to kafka break": func(w *world, s strike) {
		for range 3 {
			if l := pick(w.all(), s).present(); l != nil {
				l.kafka.reset()
			}
			time.Sleep(s.last / 3)
		}
	},
	"an instance is cut off from kafka": func(w *world, s strike) { // and comes back as a zombie
		i := pick(w.all(), s)
		i.kafka.stall(true)
		time.Sleep(s.last + time.Duration(s.pick%10)*time.Second)
		i.kafka.stall(false)
	},
	"an instance's network crawls": func(w *world, s strike) {
		i := pick(w.all(), s)
		delay := time.Duration(5+s.pick%100) * time.Millisecond
		i.kafka.slow(delay)
		i.redis.slow(delay)
		i.hooks.slow(delay)
		time.Sleep(s.last)
		i.kafka.slow(0)
		i.redis.slow(0)
		i.hooks.slow(0)
	},
	"the broker answers with errors": func(w *world, s strike) {
		f := brokerFaults[s.pick%len(brokerFaults)]
		f.Count = -1
		h := w.broker.Cluster().Fault(f)
		time.Sleep(s.last)
		h.Remove()
	},
	"the engine is away":     engineFault(func(e *engine, on bool) { e.away = on }),
	"the engine is sick":     engineFault(func(e *engine, on bool) { e.sick = on }),
	"the engine throttles":   engineFault(func(e *engine, on bool) { e.refuse = on }),
	"a redrive in the midst": func(w *world, s strike) { w.redrive(s) },
	"a stranger writes nonsense": func(w *world, s strike) {
		lanes := task.Classes()
		for i := range 1 + s.pick%5 {
			// Whether it arrives is the weather's affair.
			_ = w.cl.ProduceSync(w.t.Context(), &kgo.Record{
				Topic: topic.Tasks(pool, lanes[(s.pick+i)%len(lanes)]), Key: fmt.Append(nil, i), Value: nonsense[(s.pick+i)%len(nonsense)],
			}).FirstErr()
			time.Sleep(s.last / 10)
		}
	},
}

// nonsense is no task in three ways.
var nonsense = [][]byte{nil, []byte("nonsense"), []byte(`{"id":"task_nobody"}`)}

// brokerFaults are errors that clients live through. With REQUEST_TIMED_OUT and
// NOT_ENOUGH_REPLICAS_AFTER_APPEND the work was done all the same.
var brokerFaults = []kfake.Fault{
	{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition},
	{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut},
	{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend},
	{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition},
	{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.NotLeaderForPartition},
	{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.CoordinatorLoadInProgress},
	{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RequestTimedOut},
	{Keys: []kmsg.Key{kmsg.OffsetFetch}, Err: kerr.CoordinatorLoadInProgress},
	{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.RebalanceInProgress, TopLevel: true},
	{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, TopLevel: true},
	{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.CoordinatorNotAvailable, TopLevel: true},
	{Keys: []kmsg.Key{kmsg.FindCoordinator}, Err: kerr.CoordinatorNotAvailable},
}

func pick(from []*instance, s strike) *instance { return from[s.who%len(from)] }

func crash(i *instance, s strike) {
	i.crash()
	time.Sleep(s.last)
	i.start()
}

func roll(i *instance) {
	i.stop()
	i.start()
}

func engineFault(set func(*engine, bool)) func(*world, strike) {
	return func(w *world, s strike) {
		w.engine.set(func(e *engine) { set(e, true) })
		time.Sleep(s.last)
		w.engine.set(func(e *engine) { set(e, false) })
	}
}
