package webhook

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/webhook"
)

var origin = time.Date(2026, 3, 14, 8, 0, 0, 0, time.UTC)

// steps makes records of one task.
type steps struct{ id task.ID }

func (s steps) of(step webhook.Step, generation uint8) *webhook.Record {
	return &webhook.Record{SchemaVersion: 1, Step: step, TaskID: s.id, Tenant: "acme", Generation: generation, At: origin}
}

func (s steps) registered() *webhook.Record {
	r := s.of(webhook.Registered, 0)
	r.Webhook = &task.Webhook{URL: "https://Example.com/hook"}
	return r
}

func (s steps) ended(generation uint8, status task.Status, offset int64) *webhook.Record {
	r := s.of(webhook.Ended, generation)
	r.Status, r.Offset = status, offset
	r.Event = json.RawMessage(fmt.Sprintf(`{"type":"task.%s","generation":%d,"offset":%d}`, status, generation, offset))
	return r
}

func (s steps) reopened(generation uint8, offset int64) *webhook.Record {
	r := s.of(webhook.Reopened, generation)
	r.Offset = offset
	return r
}

func (s steps) attempted(generation uint8, n int) *webhook.Record {
	r := s.of(webhook.Attempted, generation)
	r.Attempt = &webhook.Attempt{N: n, At: origin, Outcome: webhook.Refused, Status: 500, Next: origin.Add(time.Duration(n) * time.Hour)}
	return r
}

func (s steps) settled(generation uint8, n int, state webhook.State) *webhook.Record {
	r := s.of(webhook.Settled, generation)
	r.State, r.Attempt = state, &webhook.Attempt{N: n, At: origin, Outcome: webhook.Accepted, Status: 200}
	return r
}

func newID(t interface{ Fatal(...any) }, keyed bool) task.ID {
	m, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	if keyed {
		return m.Keyed("acme", "key", [32]byte{}, origin)
	}
	return m.New("acme", origin.Add(time.Millisecond))
}

func fresh() *ledger { return newLedger(0, &room{maxEntries: 100, refuse: func() {}}) }

func fold(l *ledger, records ...*webhook.Record) *ledger {
	for _, r := range records {
		l.fold(r, l.next)
	}
	return l
}

// shown is what a ledger tells of a task.
func shown(l *ledger, id task.ID) []webhook.Delivery {
	if e := l.entries[string(id)]; e != nil {
		return e.log().Deliveries
	}
	return nil
}

func TestTheFirstOfEachStepCounts(t *testing.T) {
	s := steps{newID(t, false)}
	dead := []*webhook.Record{s.registered(), s.ended(0, task.Dead, 7), s.attempted(0, 1)}
	twice := fold(fresh(), dead...)
	fold(twice, s.registered(), s.ended(0, task.Cancelled, 9), s.attempted(0, 1), s.attempted(0, 3))
	got := shown(twice, s.id)
	if len(got) != 1 || got[0].Type != "task.dead" || len(got[0].Attempts) != 1 || !got[0].NextAt.Equal(origin.Add(time.Hour)) {
		t.Errorf("after repeats: %+v", got)
	}
	fold(twice, s.settled(0, 2, webhook.Delivered), s.settled(0, 2, webhook.GivenUp), s.attempted(0, 3))
	if got = shown(twice, s.id); got[0].State != webhook.Delivered || len(got[0].Attempts) != 2 || got[0].NextAt != nil {
		t.Errorf("settled: %+v", got)
	}
}

func TestEachGenerationIsToldOnce(t *testing.T) {
	s := steps{newID(t, false)}
	l := fold(fresh(), s.registered(), s.ended(0, task.Dead, 7), s.settled(0, 1, webhook.Delivered),
		s.reopened(1, 9), s.ended(1, task.Dead, 11), s.ended(0, task.Dead, 7), s.ended(1, task.Succeeded, 12))
	got := shown(l, s.id)
	if len(got) != 2 || got[0].State != webhook.Delivered || got[1].State != webhook.Pending || got[1].Type != "task.dead" {
		t.Errorf("deliveries: %+v", got)
	}
	if got[0].ID == got[1].ID {
		t.Error("two generations share an id")
	}
}

func TestWhatIsOverIsForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		keyed, redrivable, wanted bool
		kept                      bool // as an entry
	}{
		"a task that succeeded":          {wanted: true},
		"one whose end nobody wants":     {},
		"one that is dead":               {redrivable: true, wanted: true, kept: true},
		"one with a key, as a tombstone": {keyed: true, wanted: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, l := steps{newID(t, c.keyed)}, fresh()
			status := task.Succeeded
			if c.redrivable {
				status = task.Dead
			}
			end := s.ended(0, status, 7)
			if !c.wanted {
				end.Event = nil
			}
			fold(l, s.registered(), end)
			if c.wanted {
				fold(l, s.settled(0, 1, webhook.Delivered))
			}
			if kept := l.entries[string(s.id)] != nil; kept != c.kept {
				t.Errorf("kept %t", kept)
			}
			if c.keyed {
				fold(l, s.registered())
				if _, won := l.match(&terminal.Terminal{TaskID: s.id, Status: task.Failed}, 20); won {
					t.Error("a repeated submit had the task told twice")
				}
			}
			want := 0
			if c.kept || c.keyed {
				want = 1
			}
			if l.room.entries != want || l.room.deliveries != 0 || l.room.bytes != 0 {
				t.Errorf("room %+v", *l.room)
			}
			l.expire(func(string, time.Time) bool { return true })
			if l.room.entries != 0 {
				t.Errorf("%d entries when their results count no more", l.room.entries)
			}
		})
	}
}

func TestARegistrationBeyondTheRoomIsRefused(t *testing.T) {
	refused := 0
	l := newLedger(0, &room{maxEntries: 2, refuse: func() { refused++ }})
	for range 3 {
		fold(l, steps{newID(t, false)}.registered())
	}
	if refused != 1 || len(l.entries) != 2 {
		t.Errorf("%d refused, %d kept", refused, len(l.entries))
	}
}

func TestAReceiverThatWantsNoMoreIsNotToldOfTheNextGeneration(t *testing.T) {
	s := steps{newID(t, false)}
	l := fold(fresh(), s.registered(), s.ended(0, task.Dead, 7), s.settled(0, 1, webhook.Disabled), s.reopened(1, 9), s.ended(1, task.Succeeded, 11))
	if l.entries[string(s.id)] != nil || l.room.deliveries != 0 {
		t.Errorf("entry %+v, room %+v", l.entries[string(s.id)], *l.room)
	}
}

// A redrive that was matched before the restart is known after it, so that the
// end of the next generation is too.
func TestTheStateOfTheResultsIsFoldedFromTheLog(t *testing.T) {
	s := steps{newID(t, false)}
	l := fold(fresh(), s.registered(), s.ended(0, task.Dead, 7), s.reopened(1, 9))
	one := uint8(1)
	end := &terminal.Terminal{TaskID: s.id, Status: task.Succeeded, Generation: &one}
	if _, won := l.match(end, 8); won {
		t.Error("a record from before the redrive ended what it opened")
	}
	if e, won := l.match(end, 12); !won || e.state.Status != task.Succeeded {
		t.Errorf("won %t", won)
	}
}

// TestRepeatsAndRestartsChangeNothing folds random histories, with each record
// repeated at random, and compares them with the same without repeats.
func TestRepeatsAndRestartsChangeNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		keyed := rapid.Bool().Draw(r, "keyed")
		s := steps{newID(r, keyed)}
		history := []*webhook.Record{s.registered()}
		for g, offset := uint8(0), int64(1); ; g++ {
			last := rapid.Bool().Draw(r, "last")
			status := task.Dead
			if last {
				status = rapid.SampledFrom([]task.Status{task.Succeeded, task.Failed, task.Dead}).Draw(r, "status")
			}
			history = append(history, s.ended(g, status, offset))
			tries := rapid.IntRange(0, webhook.MaxAttempts-1).Draw(r, "tries")
			for n := range tries {
				history = append(history, s.attempted(g, n+1))
			}
			if rapid.Bool().Draw(r, "settled") {
				history = append(history, s.settled(g, tries+1, rapid.SampledFrom([]webhook.State{webhook.Delivered, webhook.GivenUp}).Draw(r, "state")))
			}
			if last || g == 5 {
				break
			}
			history = append(history, s.reopened(g+1, offset+1))
			offset += 2
		}
		first := 1 // a submit without a key is never repeated
		if keyed {
			first = 0
		}
		once, again := fold(fresh(), history...), fresh()
		for i, rec := range history {
			fold(again, rec)
			for range rapid.IntRange(0, min(2, i)).Draw(r, "repeats") {
				fold(again, history[rapid.IntRange(min(first, i), i).Draw(r, "which")])
			}
		}
		if diff := cmp.Diff(shown(once, s.id), shown(again, s.id)); diff != "" {
			r.Fatalf("(-once +repeated)\n%s", diff)
		}
		if *once.roomCounts() != *again.roomCounts() {
			r.Fatalf("room %+v, with repeats %+v", *once.roomCounts(), *again.roomCounts())
		}
		again.drop()
		if got := *again.roomCounts(); got != (counts{}) {
			r.Fatalf("room %+v once the partition left", got)
		}
	})
}

type counts struct{ entries, deliveries, bytes int }

func (l *ledger) roomCounts() *counts {
	return &counts{l.room.entries, l.room.deliveries, l.room.bytes}
}

func TestALogShowsTheLatestGenerations(t *testing.T) {
	s, l := steps{newID(t, false)}, fresh()
	fold(l, s.registered())
	for g := range uint8(webhook.MaxGenerations + 3) {
		if g > 0 {
			fold(l, s.reopened(g, int64(2*g)))
		}
		fold(l, s.ended(g, task.Dead, int64(2*g+1)), s.settled(g, 1, webhook.GivenUp))
	}
	got := shown(l, s.id)
	if len(got) != webhook.MaxGenerations || got[len(got)-1].Generation != webhook.MaxGenerations+2 {
		t.Errorf("%d deliveries, the last of generation %d", len(got), got[len(got)-1].Generation)
	}
	var _ taskstore.WebhookLog = l.entries[string(s.id)].log()
}
