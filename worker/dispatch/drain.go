package dispatch

import (
	"time"

	"github.com/penstock/penstock/worker/attempt"
)

// publishGrace is how long, after what ran was interrupted, outcomes may still
// be on their way to Kafka.
const publishGrace = 5 * time.Second

// drain stops taking. What has not started goes back unsettled, so that the
// next owner runs it; what waits with attempts that no record counts yet goes
// back through its lane, so that they are not forgotten. What runs has the
// grace to finish; then it is interrupted, which costs no attempt.
func (l *Loop) drain() {
	l.draining = true
	l.batcher.Clear()
	for _, e := range l.entries {
		switch {
		case e.started():
		case e.unsaved && e.task.OrderingKey == "" && !e.expired(l.p.Publisher.BrokerNow()):
			l.publishAgain(e, l.lane(e), l.waitLeft(e))
		default:
			l.giveBack(e)
		}
	}
	l.alarms.set(time.Now().Add(l.p.DrainGrace), func() { l.stopWork(attempt.ErrDraining) })
}

// waitLeft is the rest of an entry's wait in memory.
func (l *Loop) waitLeft(e *entry) time.Duration {
	if e.wake == nil {
		return 0
	}
	return max(0, time.Until(e.wake.at))
}
