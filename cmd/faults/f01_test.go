//go:build faults

package faults_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/report"
)

// TestF1 kills the only broker and starts it again at once. The controller
// keeps the dead broker's registration for its session, so most of the gap is
// Kafka's: an idle client beside ours tells how much.
func TestF1(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings map[string]string
		limit    time.Duration
	}{
		{"with the brokers' defaults", nil, 20 * time.Second},
		{"with a session of 3 s", tuned(), 12 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			r := openRig(t, rigParams{Settings: c.settings})
			m := r.measure(t, 0)
			must(t, r.Kafka.Brokers[0].Kill9())
			must(t, r.Kafka.Brokers[0].Restart(t.Context()))
			m.report(t, report.Result{
				Fault: "F1", What: "the only broker is killed and restarted, " + c.name,
				Target: fmt.Sprintf("write gap <= %s, nothing lost or twice", c.limit),
			}, c.limit, began)
		})
	}
}

// TestF2 kills one of three brokers, with the brokers' defaults.
func TestF2(t *testing.T) {
	r := openRig(t, rigParams{Brokers: 3})
	r.killOne(t, r.other(t), "with the brokers' defaults", 12*time.Second)
}

// TestF2F3 does the same with brokers that are missed after three seconds, to
// the controller too, and then freezes one: its connections stay open and
// nothing answers.
func TestF2F3(t *testing.T) {
	const limit = 5 * time.Second
	r := openRig(t, rigParams{Brokers: 3, Settings: tuned()})
	t.Run("one is killed", func(t *testing.T) {
		r.killOne(t, r.other(t), "with a session of 3 s", limit)
	})
	t.Run("the controller is killed", func(t *testing.T) {
		r.killOne(t, r.controller(t), "the controller, with a session of 3 s", limit)
	})
	t.Run("one is frozen for 12 s", func(t *testing.T) {
		began, broker := time.Now(), r.other(t)
		m := r.measure(t, broker)
		must(t, r.Kafka.Brokers[broker].Stop())
		pause(t, 12*time.Second)
		must(t, r.Kafka.Brokers[broker].Cont())
		m.report(t, report.Result{
			Fault: "F3", What: "one of three brokers is frozen for 12 s, with a session of 3 s",
			Target: fmt.Sprintf("write gap <= %s, nothing lost or twice", limit),
		}, limit, began)
	})
}

// killOne kills a broker of three, and starts it again afterwards.
func (r *rig) killOne(t *testing.T, broker int, how string, limit time.Duration) {
	t.Helper()
	began := time.Now()
	m := r.measure(t, broker)
	must(t, r.Kafka.Brokers[broker].Kill9())
	m.report(t, report.Result{
		Fault: "F2", What: "one of three brokers is killed, " + how,
		Target: fmt.Sprintf("write gap <= %s, nothing lost or twice", limit),
	}, limit, began)
	must(t, r.Kafka.Brokers[broker].Restart(t.Context()))
	r.awaitInSync(t)
}

// other is a broker that is not the controller.
func (r *rig) other(t *testing.T) int {
	t.Helper()
	return (r.controller(t) + 1) % len(r.Kafka.Brokers)
}

// TestF4 takes all brokers away for half a minute.
func TestF4(t *testing.T) {
	const down, answerWithin, drainWithin = 30 * time.Second, 10 * time.Second, time.Minute
	began := time.Now()
	r := openRig(t, rigParams{Settings: tuned()})
	m := r.measure(t, 0)
	must(t, r.Kafka.Brokers[0].Kill9())
	killed := time.Now()
	pause(t, down)
	back := time.Now()
	must(t, r.Kafka.Brokers[0].Restart(t.Context()))
	m.recover(t, drainWithin)
	calls := m.ingress.end()
	drained, ok := r.drained(t, accepted(calls), drainWithin)

	var slowest time.Duration
	var hints, refusals, others int
	for _, c := range calls {
		if c.began.Before(killed) || c.began.After(back) || c.err == nil {
			continue
		}
		slowest = max(slowest, c.ended.Sub(c.began))
		switch after, no := refused(c.err); {
		case !no:
			others++
			t.Log("neither accepted nor refused:", c.err)
		case after > 0:
			hints++
			fallthrough
		default:
			refusals++
		}
	}
	total := time.Since(back)
	report.Row(t, report.Result{
		Fault: "F4", What: "all brokers are down for 30 s under a submit each 50 ms",
		Target: "503 with Retry-After within 10 s; drained <= 60 s after the return",
		Measured: fmt.Sprintf("%d refused with 503, %d of them with Retry-After, %d otherwise, the slowest after %.1f s; drained %.1f s after the return (last %.1f s)",
			refusals, hints, others, slowest.Seconds(), total.Seconds(), drained.Seconds()),
		OK:     ok && refusals > 0 && hints == refusals && others == 0 && slowest <= answerWithin+time.Second && total <= drainWithin,
		Broken: r.broken(t, calls), Took: time.Since(began),
	})
	m.idle.end()
}

// measurement is a load on the ingress and an idle client beside it.
type measurement struct {
	r             *rig
	ingress, idle *beat
	at            time.Time // when the fault begins
}

// measure starts both, the idle client on a partition of the broker that is to
// fail, and returns once they run smoothly.
func (r *rig) measure(t *testing.T, broker int) *measurement {
	t.Helper()
	m := &measurement{r: r, ingress: r.submits(t), idle: r.idle(t, broker)}
	since := time.Now()
	if _, ok := eventually(t, 20*time.Second, func() bool {
		return m.ingress.successAfter(since.Add(2*time.Second)) && m.idle.successAfter(since.Add(2*time.Second))
	}); !ok {
		t.Fatal("no load before the fault")
	}
	m.at = time.Now()
	return m
}

// recover waits until both succeed again.
func (m *measurement) recover(t *testing.T, within time.Duration) {
	t.Helper()
	since := time.Now()
	if _, ok := eventually(t, within, func() bool { return m.ingress.successAfter(since) && m.idle.successAfter(since) }); !ok {
		t.Errorf("writes have not come back within %s", within)
	}
}

// report waits for the end of the fault and adds the row: the gap, and its
// ratio to the idle client's.
func (m *measurement) report(t *testing.T, row report.Result, limit time.Duration, began time.Time) {
	t.Helper()
	m.recover(t, time.Minute)
	pause(t, time.Second) // calls that were held up come in
	calls, idle := m.ingress.end(), m.idle.end()
	drained, ok := m.r.drained(t, accepted(calls), time.Minute)
	ours, theirs := outage(calls), outage(idle)
	row.Measured = fmt.Sprintf("gap %.1f s, idle client %.1f s, ratio %.2f; %d accepted, %d not, drained in %.1f s",
		ours.Seconds(), theirs.Seconds(), ours.Seconds()/theirs.Seconds(), len(accepted(calls)), len(calls)-len(accepted(calls)), drained.Seconds())
	row.OK, row.Broken, row.Took = ok && ours <= limit, m.r.broken(t, calls), time.Since(began)
	report.Row(t, row)
}
