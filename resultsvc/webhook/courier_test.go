package webhook_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	courier "github.com/penstock/penstock/resultsvc/webhook"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
)

func TestAnEndIsTold(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.start(nil)
		ids := make([]task.ID, 12) // over both partitions
		for i := range ids {
			ids[i] = b.submit(b.hook())
			b.end(ids[i], task.Succeeded, 0)
		}
		for _, id := range ids {
			got := b.settled(id, 1)
			calls := b.to.of(id)
			if len(calls) != 1 || len(got) != 1 || got[0].State != webhook.Delivered || len(got[0].Attempts) != 1 {
				t.Fatalf("%d calls, log %+v", len(calls), got)
			}
			e := calls[0].event
			if e.Type != "task.succeeded" || e.Object != "event" || e.Data.Output.Text != "hello" || e.Data.StatusURL != "/v1/tasks/"+string(id) {
				t.Errorf("event %+v", e)
			}
			if got[0].Attempts[0].Outcome != webhook.Accepted || got[0].Attempts[0].Status != http.StatusOK || got[0].SettledAt == nil || got[0].NextAt != nil {
				t.Errorf("log %+v", got[0])
			}
		}
	})
}

func TestAFailedAttemptIsRepeatedOnSchedule(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.to.answers(func(n int, _ heard) int {
			if n < 4 {
				return http.StatusNotFound
			}
			return http.StatusOK
		})
		m := b.start(nil)
		id := b.submit(b.hook())
		b.end(id, task.Failed, 0)
		got := b.settled(id, 1)[0]
		calls := b.to.of(id)
		if got.State != webhook.Delivered || len(got.Attempts) != 4 || len(calls) != 4 {
			t.Fatalf("%s after %d attempts, %d calls", got.State, len(got.Attempts), len(calls))
		}
		for i, want := range []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute} {
			if took := calls[i+1].at.Sub(calls[i].at); took < want*9/10 || took > want*11/10+time.Second {
				t.Errorf("wait %d took %s; want about %s", i+1, took, want)
			}
			if !got.Attempts[i].Next.After(got.Attempts[i].At) {
				t.Errorf("attempt %d: %+v", i+1, got.Attempts[i])
			}
			if calls[i+1].id != calls[0].id || calls[i+1].body != calls[0].body {
				t.Errorf("attempt %d has id %s and body %s", i+2, calls[i+1].id, calls[i+1].body)
			}
		}
		if n, err := testutil.GatherAndCount(m.reg, "penstock_resultsvc_webhook_attempts_total"); n != len(webhook.Outcomes()) || err != nil {
			t.Errorf("%d outcomes are counted, %v", n, err)
		}
		if n := sum(t, m, "penstock_resultsvc_webhook_attempts_total"); n != 4 {
			t.Errorf("%v attempts are counted", n)
		}
	})
}

// TestTheTenthFailureIsTheLast takes over a delivery that failed nine times.
func TestTheTenthFailureIsTheLast(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.to.answers(func(int, heard) int { return http.StatusServiceUnavailable })
		m := b.start(nil)
		id := b.submit(b.hook())
		b.end(id, task.Failed, 0)
		b.await("the first attempt", func() bool { d := b.logs.of(id); return len(d) == 1 && len(d[0].Attempts) == 1 })
		m.stop()
		due := time.Now().Add(time.Minute).UTC()
		for n := 2; n < webhook.MaxAttempts; n++ {
			if _, err := b.pub.Webhook(b.t.Context(), &webhook.Record{
				SchemaVersion: task.SchemaVersion, Step: webhook.Attempted, TaskID: id, Tenant: "acme", At: time.Now().UTC(),
				Attempt: &webhook.Attempt{N: n, At: time.Now().UTC(), Outcome: webhook.TimedOut, Next: due},
			}); err != nil {
				t.Fatal(err)
			}
		}
		b.start(nil)
		got := b.settled(id, 1)[0]
		calls := b.to.of(id)
		if got.State != webhook.GivenUp || len(got.Attempts) != webhook.MaxAttempts || len(calls) != 2 || calls[1].at.Before(due) {
			t.Errorf("%s after %d attempts, %d calls, the last at %s; due at %s", got.State, len(got.Attempts), len(calls), calls[len(calls)-1].at, due)
		}
	})
}

func TestTheAnswerDecides(t *testing.T) {
	for name, c := range map[string]struct {
		answers []int // the last is repeated; 0 hangs up
		state   webhook.State
		calls   int
	}{
		"204 is received":                  {[]int{204}, webhook.Delivered, 1},
		"a redirect is no answer":          {[]int{302, 200}, webhook.Delivered, 2},
		"trouble that passes":              {[]int{500, 0, 429, 200}, webhook.Delivered, 4},
		"410 wants no more of this":        {[]int{410, 200}, webhook.Disabled, 1},
		"410 after a failure, and no more": {[]int{503, 410, 200}, webhook.Disabled, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bundle) {
				b.to.answers(func(n int, _ heard) int { return c.answers[min(n, len(c.answers))-1] })
				b.start(nil)
				id := b.submit(b.hook())
				b.end(id, task.Succeeded, 0)
				got := b.settled(id, 1)[0]
				time.Sleep(40 * time.Minute)
				if got.State != c.state || len(b.to.of(id)) != c.calls || len(got.Attempts) != c.calls {
					t.Errorf("%s after %d calls, %d attempts", got.State, len(b.to.of(id)), len(got.Attempts))
				}
			})
		})
	}
}

func TestOneThatNeverAnswersIsCutAndTriedAgain(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.to.answers(func(n int, _ heard) int {
			if n == 1 {
				time.Sleep(time.Minute)
			}
			return http.StatusOK
		})
		b.start(nil)
		id := b.submit(b.hook())
		b.end(id, task.Succeeded, 0)
		got := b.settled(id, 1)[0]
		if len(got.Attempts) != 2 || got.Attempts[0].Outcome != webhook.TimedOut || got.State != webhook.Delivered {
			t.Errorf("log %+v", got)
		}
		time.Sleep(2 * time.Minute) // the handler ends
	})
}

// crashing is a publisher whose process dies at its n-th write: before it, or
// right after it. From then on nothing more is written.
type crashing struct {
	*tasktopic.Publisher
	mu     sync.Mutex
	left   int
	before bool
	dead   bool
	die    func()
}

func (p *crashing) write() (now, dies bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return false, false
	}
	p.left--
	p.dead = p.left == 0
	return !p.dead || !p.before, p.dead
}

func (p *crashing) Webhook(ctx context.Context, w *webhook.Record) (ack tasktopic.Ack, err error) {
	now, dies := p.write()
	err = tasktopic.ErrUnknown
	if now {
		ack, err = p.Publisher.Webhook(ctx, w)
	}
	if dies {
		p.die()
	}
	return ack, err
}

func (p *crashing) WebhookAsync(w *webhook.Record, done func(tasktopic.Ack, error)) {
	now, dies := p.write()
	if dies {
		defer p.die()
	}
	if !now {
		done(tasktopic.Ack{}, tasktopic.ErrUnknown)
		return
	}
	p.Publisher.WebhookAsync(w, done)
}

// TestADeathAtAnyStepLosesNothing kills the courier before and after each of the
// four records of a delivery that fails twice, and lets another go on.
func TestADeathAtAnyStepLosesNothing(t *testing.T) {
	for at := 1; at <= 4; at++ {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("at record %d, before it is written: %t", at, before), func(t *testing.T) {
				inBubble(t, func(b *bundle) {
					b.to.answers(func(n int, _ heard) int {
						if n <= 2 {
							return http.StatusBadGateway
						}
						return http.StatusOK
					})
					died := make(chan struct{})
					doomed := &crashing{Publisher: b.pub, left: at, before: before, die: func() { close(died) }}
					m := b.start(func(d *courier.Deps, _ *courier.Params) { d.Publisher = doomed })
					id := b.submit(b.hook())
					b.end(id, task.Succeeded, 0)
					<-died
					m.stop()
					b.start(nil)
					got := b.settled(id, 1)
					time.Sleep(40 * time.Minute)
					calls := b.to.of(id)
					if len(got) != 1 || got[0].State != webhook.Delivered || len(b.to.ids(id)) != 1 || len(calls) < 3 || len(calls) > 4 {
						t.Errorf("log %+v, ids %v, %d calls", got, b.to.ids(id), len(calls))
					}
					for _, c := range calls {
						if c.body != calls[0].body {
							t.Errorf("a call says %s, the first %s", c.body, calls[0].body)
						}
					}
				})
			})
		}
	}
}

func TestARestartInTheMiddleOfTheScheduleKeepsTheTime(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.to.answers(func(n int, _ heard) int {
			if n <= 3 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
		m := b.start(nil)
		id := b.submit(b.hook())
		b.end(id, task.Succeeded, 0)
		b.await("three attempts", func() bool { return len(b.to.of(id)) == 3 })
		time.Sleep(time.Second)
		m.stop()
		time.Sleep(10 * time.Minute)
		b.start(nil)
		b.settled(id, 1)
		calls := b.to.of(id)
		if wait := calls[3].at.Sub(calls[2].at); len(calls) != 4 || wait < 27*time.Minute || wait > 34*time.Minute {
			t.Errorf("%d calls, the last after %s", len(calls), wait)
		}
	})
}

func TestEndsFromBeforeTheStartAreTold(t *testing.T) {
	inBubble(t, func(b *bundle) {
		id := b.submit(b.hook())
		b.end(id, task.Dead, 0)
		time.Sleep(time.Hour)
		b.start(nil)
		if got := b.settled(id, 1); got[0].Type != "task.dead" {
			t.Errorf("log %+v", got)
		}
	})
}

func TestRepeatedTerminalsAreToldOnce(t *testing.T) {
	inBubble(t, func(b *bundle) {
		m := b.start(nil)
		id := b.submit(b.hook())
		b.end(id, task.Succeeded, 0)
		b.end(id, task.Succeeded, 0)
		b.end(id, task.Cancelled, -1)
		b.settled(id, 1)
		m.stop()
		b.end(id, task.Failed, 0)
		b.start(nil)
		time.Sleep(time.Minute)
		if calls := b.to.of(id); len(calls) != 1 || calls[0].event.Type != "task.succeeded" {
			t.Errorf("%d calls", len(calls))
		}
	})
}

func TestARedriveIsToldAgainUnderItsOwnID(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("with a restart between: %t", restart), func(t *testing.T) {
			inBubble(t, func(b *bundle) {
				m := b.start(nil)
				id := b.submit(b.hook())
				b.end(id, task.Dead, 0)
				b.settled(id, 1)
				b.end(id, terminal.Reopened, 1)
				if restart {
					time.Sleep(5 * time.Second) // the redrive is matched and the position committed
					m.stop()
					b.start(nil)
				}
				b.end(id, task.Succeeded, 1)
				got := b.settled(id, 2)
				ids := b.to.ids(id)
				if len(got) != 2 || len(ids) != 2 || got[0].Type != "task.dead" || got[1].Type != "task.succeeded" || got[1].Generation != 1 {
					t.Errorf("ids %v, log %+v", ids, got)
				}
				if got[0].ID != webhook.EventID(id, 0) || got[1].ID != webhook.EventID(id, 1) {
					t.Errorf("ids %s and %s", got[0].ID, got[1].ID)
				}
			})
		})
	}
}

func TestOnlyWhatIsWantedIsTold(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.start(nil)
		bad := b.submit(b.hook("task.failed", "task.dead"))
		good := b.submit(b.hook("task.succeeded"))
		b.end(bad, task.Succeeded, 0)
		b.end(good, task.Succeeded, 0)
		b.settled(good, 1)
		time.Sleep(time.Minute)
		if n := len(b.to.of(bad)); n != 0 {
			t.Errorf("%d calls that nobody wanted", n)
		}
	})
}

func TestTasksWithoutAWebhookAreNotTold(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.start(nil)
		for range 50 {
			b.end(b.minter.New("acme", time.Now().Add(time.Millisecond)), task.Succeeded, 0)
		}
		id := b.submit(b.hook())
		b.end(id, task.Succeeded, 0)
		b.settled(id, 1)
		b.to.mu.Lock()
		defer b.to.mu.Unlock()
		if len(b.to.calls) != 1 {
			t.Errorf("%d calls", len(b.to.calls))
		}
	})
}

// TestARepeatedSubmitIsNotToldTwice registers a keyed task again after all is
// over, and lets its second run end otherwise.
func TestARepeatedSubmitIsNotToldTwice(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("after a restart: %t", restart), func(t *testing.T) {
			inBubble(t, func(b *bundle) {
				m := b.start(nil)
				id := b.minter.Keyed("acme", "order-17", [32]byte{}, time.Now())
				b.register(id, b.hook())
				b.end(id, task.Succeeded, 0)
				b.settled(id, 1)
				if restart {
					m.stop()
					b.start(nil)
				}
				b.register(id, b.hook())
				b.end(id, task.Failed, 0)
				time.Sleep(time.Minute)
				if calls := b.to.of(id); len(calls) != 1 {
					t.Errorf("%d calls", len(calls))
				}
			})
		})
	}
}

func TestAnOutageOfKafkaCallsNobodyOverAndOver(t *testing.T) {
	inBubble(t, func(b *bundle) {
		called := make(chan struct{})
		b.to.answers(func(n int, _ heard) int {
			if n == 1 {
				close(called)
				time.Sleep(5 * time.Second)
			}
			return http.StatusOK
		})
		b.start(nil)
		id := b.submit(b.hook())
		b.end(id, task.Succeeded, 0)
		<-called
		var away atomic.Bool
		away.Store(true)
		b.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			if !away.Load() {
				return nil, nil, false
			}
			b.cluster.KeepControl()
			return nil, context.DeadlineExceeded, true // the connection dies
		})
		time.Sleep(5 * time.Minute)
		if n := len(b.to.of(id)); n != 1 {
			t.Errorf("%d calls while nothing could be written down", n)
		}
		away.Store(false)
		b.settled(id, 1)
	})
}

func TestBeyondTheRoomTheMostFailedIsGivenUp(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.to.answers(func(int, heard) int { return http.StatusInternalServerError })
		m := b.start(func(_ *courier.Deps, p *courier.Params) { p.MaxDeliveries = 2 })
		old := b.submit(b.hook())
		b.end(old, task.Succeeded, 0)
		b.await("two attempts", func() bool { return len(b.to.of(old)) == 2 })
		fresh := []task.ID{b.submit(b.hook()), b.submit(b.hook())}
		for _, id := range fresh {
			b.end(id, task.Succeeded, 0)
		}
		got := b.settled(old, 1)[0]
		if got.State != webhook.GivenUp || len(got.Attempts) != 2 {
			t.Errorf("log %+v", got)
		}
		time.Sleep(10 * time.Second)
		for _, id := range fresh {
			if d := b.logs.of(id); len(d) != 1 || d[0].State != webhook.Pending {
				t.Errorf("a fresh one: %+v", d)
			}
		}
		_ = m
	})
}

func TestARegistrationWithoutRoomIsAnAlarm(t *testing.T) {
	inBubble(t, func(b *bundle) {
		m := b.start(func(_ *courier.Deps, p *courier.Params) { p.MaxEntries = 3 })
		var ids []task.ID
		for range 5 {
			ids = append(ids, b.submit(b.hook()))
		}
		refused := func() float64 { return sum(t, m, "penstock_resultsvc_webhook_refused_total") }
		b.await("the alarm", func() bool { return refused() == 2 })
		for _, id := range ids {
			b.end(id, task.Succeeded, 0)
		}
		time.Sleep(time.Minute)
		told := 0
		for _, id := range ids {
			told += len(b.to.of(id))
		}
		if told != 3 {
			t.Errorf("%d told", told)
		}
	})
}

func TestLogsComeBackAfterRedisWasLost(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.to.answers(func(_ int, h heard) int {
			if h.event.Type == "task.failed" {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
		b.start(nil)
		done, open := b.submit(b.hook()), b.submit(b.hook())
		b.end(done, task.Succeeded, 0)
		b.end(open, task.Failed, 0)
		b.settled(done, 1)
		b.await("an attempt", func() bool { d := b.logs.of(open); return len(d) == 1 && len(d[0].Attempts) == 1 })
		b.logs.goAway(true)
		later := b.submit(b.hook())
		b.end(later, task.Succeeded, 0)
		time.Sleep(time.Minute)
		b.logs.lose()
		b.logs.goAway(false)
		for _, id := range []task.ID{done, later} {
			if got := b.settled(id, 1); len(got) != 1 || got[0].State != webhook.Delivered {
				t.Errorf("log %+v", got)
			}
		}
		b.await("the open one", func() bool { d := b.logs.of(open); return len(d) == 1 && len(d[0].Attempts) == 2 })
	})
}

func TestTheLogIsReadFromItsStartAlsoWhereRetentionMovedIt(t *testing.T) {
	inBubble(t, func(b *bundle) {
		for range 6 {
			b.submit(b.hook())
		}
		writer, err := kafkaclient.New(b.kafka, quiet())
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		adm := kadm.NewClient(writer)
		ends, err := adm.ListEndOffsets(b.t.Context(), topic.Webhooks)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := adm.DeleteRecords(b.t.Context(), ends.Offsets()); err != nil {
			t.Fatal(err)
		}
		b.start(nil)
		id := b.submit(b.hook())
		b.end(id, task.Succeeded, 0)
		b.settled(id, 1)
	})
}

func TestStrangeRecordsArePassedOver(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.start(nil)
		writer, err := kafkaclient.New(b.kafka, quiet(), kafkaclient.ProducerOpts(1<<20)...)
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		id := b.submit(b.hook())
		for _, name := range []string{topic.Webhooks, topic.Results} {
			for p := range int32(partitions) {
				for _, value := range []string{"", "{", `{"schema_version":99}`} {
					r := &kgo.Record{Topic: name, Key: []byte(id), Value: []byte(value)}
					kafkaclient.PinPartition(r, p)
					if err := writer.ProduceSync(b.t.Context(), r).FirstErr(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		b.end(id, task.Succeeded, 0)
		b.settled(id, 1)
	})
}

// TestMembersComeAndGoAndEveryEndIsTold lets couriers join, leave and die while
// tasks end, in real time and on the real network.
func TestMembersComeAndGoAndEveryEndIsTold(t *testing.T) {
	inRealTime(t, func(b *bundle) {
		first := b.start(nil)
		var ids []task.ID
		for round := range 3 {
			other := b.start(nil)
			for range 30 {
				id := b.submit(b.hook())
				b.end(id, task.Succeeded, 0)
				ids = append(ids, id)
				if rand.IntN(4) == 0 {
					<-time.After(10 * time.Millisecond)
				}
			}
			if round%2 == 0 {
				first.stop()
				first = other
			} else {
				other.stop()
			}
		}
		for _, id := range ids {
			b.settled(id, 1)
			if got := b.to.ids(id); !slices.Equal(got, []string{webhook.EventID(id, 0)}) {
				t.Errorf("ids %v", got)
			}
		}
		calls := 0
		for _, id := range ids {
			calls += len(b.to.of(id))
		}
		t.Logf("%d calls for %d ends", calls, len(ids))
	})
}

// sum adds up a metric of a member over its labels.
func sum(t *testing.T, m *member, name string) float64 {
	t.Helper()
	families, err := m.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, one := range f.GetMetric() {
			total += one.GetCounter().GetValue() + one.GetGauge().GetValue()
		}
	}
	return total
}

// TestAnEndIsMatchedOnlyOnceAllThatWasRegisteredIsRead lets the courier hear of
// ends at once and of registrations late.
func TestAnEndIsMatchedOnlyOnceAllThatWasRegisteredIsRead(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.start(nil)
		warm := b.submit(b.hook())
		b.end(warm, task.Succeeded, 0)
		b.settled(warm, 1)
		var slow atomic.Bool
		slow.Store(true)
		b.cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if !slow.Load() {
				return nil, nil, false
			}
			b.cluster.KeepControl()
			if req.(*kmsg.FetchRequest).MaxBytes > 4<<20 { // the member's; who reads results takes less
				b.cluster.SleepControl(func() { time.Sleep(3 * time.Second) })
			}
			return nil, nil, false
		})
		var ids []task.ID
		for range 8 {
			id := b.submit(b.hook())
			b.end(id, task.Succeeded, 0)
			ids = append(ids, id)
		}
		for _, id := range ids {
			b.settled(id, 1)
		}
		slow.Store(false)
		time.Sleep(10 * time.Second) // nobody is held any more
	})
}
