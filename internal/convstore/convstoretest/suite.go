// Package convstoretest is the conformance suite of convstore: the same tests
// against the Redis of the tests and against a real one.
package convstoretest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/task"
)

// Open returns a client of an empty Redis that the test owns.
type Open func(t *testing.T) redis.UniversalClient

// Run runs the suite. The tests empty the Redis.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, *bundle){
		"a session shows its turns in the order of the log":     inOrder,
		"a turn is there once, however often it is told":        once,
		"records before the position change nothing":            replay,
		"a batch that leaves a gap changes nothing":             gap,
		"the oldest turns go when there are too many":           tooMany,
		"the oldest turns go when they are too large":           tooLarge,
		"a session that is deleted begins anew":                 deleted,
		"settings that are kept count where none newer are":     kept,
		"a session that died is another one when it comes back": died,
		"a stored response is there until it is deleted":        stored,
		"what was read back after a loss is known as such":      restored,
		"what was never there is unknown once all is read":      unknown,
		"random logs fold as the rules say, however they come":  random,
	} {
		t.Run(name, func(t *testing.T) { test(t, setup(t, open)) })
	}
}

const tenant = "acme"

type bundle struct {
	rdb    redis.UniversalClient
	store  *convstore.Store
	minter *task.Minter
	now    time.Time
	next   int64
}

func setup(t *testing.T, open Open) *bundle {
	t.Helper()
	rdb := open(t)
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{rdb: rdb, store: convstore.New(rdb, convstore.Params{Partitions: 1}), minter: minter, now: time.Now().Truncate(time.Millisecond).UTC()}
	b.empty(t)
	return b
}

func (b *bundle) empty(t testing.TB) {
	t.Helper()
	if err := b.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Rebuild(t.Context(), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	b.next = 0
}

// tell applies records behind what was told before.
func (b *bundle) tell(t testing.TB, records ...*conversation.Record) {
	t.Helper()
	batch := make([]convstore.Applied, len(records))
	for i, r := range records {
		batch[i] = convstore.Applied{Record: r, Offset: b.next + int64(i)}
	}
	end := b.next + int64(len(records))
	if err := b.store.Apply(t.Context(), 0, b.next, end, batch); err != nil {
		t.Fatal(err)
	}
	b.next = end
}

func (b *bundle) id() task.ID { return b.minter.New(tenant, b.now) }

func (b *bundle) record(s conversation.Step, session string, id task.ID) *conversation.Record {
	return &conversation.Record{SchemaVersion: 1, Step: s, Tenant: tenant, SessionID: session, TaskID: id, At: b.now, Until: b.now.Add(time.Hour)}
}

func (b *bundle) turn(session string, id task.ID, text string) *conversation.Record {
	r := b.record(conversation.Turned, session, id)
	r.Lane, r.Content = "lane", words(text)
	return r
}

func words(text string) json.RawMessage { return json.RawMessage(strconv.Quote(text)) }

func (b *bundle) open(session, instructions string) *conversation.Record {
	r := b.record(conversation.Opened, session, "")
	r.Settings = &conversation.Settings{Instructions: instructions}
	return r
}

// said are the contents of a session's turns; nil: there is no session.
func (b *bundle) said(t testing.TB, session string) []string {
	t.Helper()
	s, err := b.store.Session(t.Context(), tenant, session, convstore.MaxTurns)
	if errors.Is(err, convstore.ErrUnknown) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, turn := range s.Turns {
		var text string
		if err := json.Unmarshal(turn.Content, &text); err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
	}
	if s.Total != len(out) {
		t.Errorf("%d turns of %d are shown", len(out), s.Total)
	}
	return out
}

func (b *bundle) want(t testing.TB, session string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, b.said(t, session)); diff != "" {
		t.Errorf("session %s (-want +got):\n%s", session, diff)
	}
}

func inOrder(t *testing.T, b *bundle) {
	ids := []task.ID{b.id(), b.id(), b.id()}
	slices.Sort(ids)
	b.tell(t, b.turn("s", ids[2], "one"), b.turn("other", b.id(), "not ours"), b.open("s", "be brief"), b.turn("s", ids[0], "two"))
	b.tell(t, b.turn("s", ids[1], "three"))
	b.want(t, "s", "one", "two", "three")
	s, err := b.store.Session(t.Context(), tenant, "s", 2)
	if err != nil {
		t.Fatal(err)
	}
	want := &convstore.Session{
		Settings: &conversation.Settings{Instructions: "be brief"}, Made: b.now, Kept: b.now.Add(time.Hour), Until: b.now.Add(time.Hour), Total: 3,
		Turns: []convstore.Turn{
			{TaskID: ids[0], Lane: "lane", At: b.now, Content: words("two")},
			{TaskID: ids[1], Lane: "lane", At: b.now, Content: words("three")},
		},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("the newest two (-want +got):\n%s", diff)
	}
	if _, err := b.store.Session(t.Context(), "rival", "s", 1); !errors.Is(err, convstore.ErrUnknown) {
		t.Errorf("another tenant's session of that name: %v", err)
	}
}

func once(t *testing.T, b *bundle) {
	id := b.id()
	if there, err := b.store.Turned(t.Context(), tenant, "s", id); there || err != nil {
		t.Errorf("before it is told it is there: %t, %v", there, err)
	}
	b.tell(t, b.turn("s", id, "one"), b.turn("s", id, "again"))
	b.tell(t, b.turn("s", b.id(), "two"), b.turn("s", id, "and again"))
	b.want(t, "s", "one", "two")
	if there, err := b.store.Turned(t.Context(), tenant, "s", id); !there || err != nil {
		t.Errorf("it is there: %t, %v", there, err)
	}
}

func replay(t *testing.T, b *bundle) {
	log := []convstore.Applied{{Record: b.turn("s", b.id(), "one"), Offset: 0}, {Record: b.record(conversation.Deleted, "s", ""), Offset: 1}, {Record: b.turn("s", b.id(), "two"), Offset: 2}}
	for range 2 {
		if err := b.store.Apply(t.Context(), 0, 0, 3, log); err != nil {
			t.Fatal(err)
		}
		b.want(t, "s", "two")
	}
	if err := b.store.Apply(t.Context(), 0, 1, 2, log[1:2]); err != nil {
		t.Fatal(err)
	}
	b.want(t, "s", "two")
}

func gap(t *testing.T, b *bundle) {
	ahead := []convstore.Applied{{Record: b.turn("s", b.id(), "later"), Offset: 7}}
	err := b.store.Apply(t.Context(), 0, 7, 8, ahead)
	want := &projection.GapError{Log: "penstock.conversations", Partition: 0, Next: 0}
	var got *projection.GapError
	if !errors.As(err, &got) || *got != *want {
		t.Errorf("got %v, want %v", err, want)
	}
	b.want(t, "s")
	if err := b.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Apply(t.Context(), 0, 0, 8, ahead); !errors.As(err, &got) || !got.Missing {
		t.Errorf("a Redis that knows nothing: %v", err)
	}
	if _, err := b.store.Session(t.Context(), tenant, "s", 1); !errors.Is(err, convstore.ErrRebuilding) {
		t.Errorf("a session of which nothing can be said: %v", err)
	}
	if _, _, err := b.store.Stored(t.Context(), b.id()); !errors.Is(err, convstore.ErrRebuilding) {
		t.Errorf("a response of which nothing can be said: %v", err)
	}
}

func tooMany(t *testing.T, b *bundle) {
	var records []*conversation.Record
	var want []string
	for i := range convstore.MaxTurns + 3 {
		text := strconv.Itoa(i)
		records = append(records, b.turn("s", b.id(), text))
		if i >= 3 {
			want = append(want, text)
		}
	}
	b.tell(t, records...)
	b.want(t, "s", want...)
}

func tooLarge(t *testing.T, b *bundle) {
	third := strings.Repeat("x", convstore.MaxBytes/3)
	b.tell(t, b.turn("s", b.id(), "a"+third), b.turn("s", b.id(), "b"+third), b.turn("s", b.id(), "c"+third), b.turn("s", b.id(), "d"))
	b.want(t, "s", "b"+third, "c"+third, "d")
	b.tell(t, b.turn("s", b.id(), strings.Repeat("y", convstore.MaxBytes))) // alone it may be larger than all
	if got := b.said(t, "s"); len(got) != 1 || got[0][0] != 'y' {
		t.Errorf("%d turns are left", len(got))
	}
}

func deleted(t *testing.T, b *bundle) {
	b.tell(t, b.open("s", "be brief"), b.turn("s", b.id(), "one"), b.record(conversation.Deleted, "s", ""))
	if got := b.said(t, "s"); got != nil {
		t.Errorf("a deleted session shows %q", got)
	}
	b.tell(t, b.turn("s", b.id(), "two"))
	b.want(t, "s", "two")
	if s, err := b.store.Session(t.Context(), tenant, "s", 0); err != nil || s.Settings != nil || len(s.Turns) != 0 || s.Total != 1 {
		t.Errorf("the new session is %+v, %v", s, err)
	}
}

func kept(t *testing.T, b *bundle) {
	settings := func(step conversation.Step, instructions string, made, until time.Duration) *conversation.Record {
		r := b.open("s", instructions)
		r.Step, r.At, r.Until = step, b.now.Add(made), b.now.Add(until)
		return r
	}
	gone := b.record(conversation.Deleted, "s", "")
	for name, c := range map[string]struct {
		log  []*conversation.Record
		want string // instructions, and what they are kept until
	}{
		"where the log has forgotten their first record": {
			[]*conversation.Record{b.turn("s", b.id(), "one"), settings(conversation.Kept, "old", -time.Hour, 2*time.Hour)}, "old 2h0m0s",
		},
		"as what they repeat": {
			[]*conversation.Record{settings(conversation.Opened, "old", -time.Hour, time.Hour), settings(conversation.Kept, "old", -time.Hour, 2*time.Hour)}, "old 2h0m0s",
		},
		"not before newer ones": {
			[]*conversation.Record{settings(conversation.Opened, "new", 0, time.Hour), settings(conversation.Kept, "old", -time.Hour, 2*time.Hour)}, "new 1h0m0s",
		},
		"not once they are deleted": {
			[]*conversation.Record{settings(conversation.Opened, "old", -time.Hour, time.Hour), gone, settings(conversation.Kept, "old", -time.Hour, 2*time.Hour), b.turn("s", b.id(), "one")}, "",
		},
		"not before those of the next session": {
			[]*conversation.Record{gone, settings(conversation.Opened, "new", time.Minute, time.Hour), settings(conversation.Kept, "old", -time.Hour, 2*time.Hour)}, "new 1h0m0s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b.empty(t)
			b.tell(t, c.log...)
			s, err := b.store.Session(t.Context(), tenant, "s", 0)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if s.Settings != nil {
				got = s.Settings.Instructions + " " + s.Kept.Sub(b.now).String()
			}
			if got != c.want {
				t.Errorf("they are %q, want %q", got, c.want)
			}
		})
	}
}

func died(t *testing.T, b *bundle) {
	old, late := b.turn("s", b.id(), "long ago"), b.turn("s", b.id(), "today")
	old.At, old.Until = b.now.Add(-3*time.Hour), b.now.Add(-2*time.Hour)
	kept, prolonged := b.open("k", "be brief"), b.turn("k", b.id(), "today")
	kept.At, kept.Until = b.now.Add(-3*time.Hour), b.now.Add(-time.Hour)
	prolonged.At = b.now.Add(-90 * time.Minute)
	b.tell(t, old, kept)
	if got := b.said(t, "s"); got != nil {
		t.Errorf("a session past its life shows %q", got)
	}
	b.tell(t, late, prolonged)
	b.want(t, "s", "today")
	if s, err := b.store.Session(t.Context(), tenant, "k", 1); err != nil || s.Settings == nil || len(s.Turns) != 1 {
		t.Errorf("the session that was prolonged in time is %+v, %v", s, err)
	}
}

func stored(t *testing.T, b *bundle) {
	id, gone := b.id(), b.id()
	ask := func(id task.ID, text string) *conversation.Record {
		r := b.record(conversation.Stored, "", id)
		r.Content = words(text)
		return r
	}
	past := ask(gone, "past")
	past.Until = b.now.Add(-time.Second)
	b.tell(t, ask(id, "first"), ask(id, "second"), past)
	r, dead, err := b.store.Stored(t.Context(), id)
	if diff := cmp.Diff(&convstore.Request{At: b.now, Content: words("first"), Offset: r.Offset}, r); diff != "" || dead || err != nil {
		t.Errorf("%v, deleted %t (-want +got):\n%s", err, dead, diff)
	}
	if _, _, err := b.store.Stored(t.Context(), gone); !errors.Is(err, convstore.ErrUnknown) {
		t.Errorf("one past its life: %v", err)
	}
	b.tell(t, b.record(conversation.Deleted, "", id), ask(id, "third"))
	if _, dead, err := b.store.Stored(t.Context(), id); !errors.Is(err, convstore.ErrUnknown) || !dead {
		t.Errorf("a deleted one: deleted %t, %v", dead, err)
	}
}

func unknown(t *testing.T, b *bundle) {
	if err := b.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Rebuild(t.Context(), 0, 0, 2); err != nil {
		t.Fatal(err)
	}
	id := b.id()
	b.tell(t, b.turn("s", b.id(), "one"))
	b.want(t, "s", "one") // what is there is there
	if _, _, err := b.store.Stored(t.Context(), id); !errors.Is(err, convstore.ErrRebuilding) {
		t.Errorf("in the middle of a rebuild: %v", err)
	}
	b.tell(t, b.turn("s", b.id(), "two"))
	if _, dead, err := b.store.Stored(t.Context(), id); !errors.Is(err, convstore.ErrUnknown) || dead {
		t.Errorf("once all is read: %v", err)
	}
}

func restored(t *testing.T, b *bundle) {
	ask := func(id task.ID) *conversation.Record {
		r := b.record(conversation.Stored, "", id)
		r.Content = words("asked")
		return r
	}
	before, after := b.id(), b.id()
	if err := b.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Rebuild(t.Context(), 0, 0, 1); err != nil {
		t.Fatal(err)
	}
	b.tell(t, ask(before), ask(after))
	for id, want := range map[task.ID]bool{before: true, after: false} {
		if r, _, err := b.store.Stored(t.Context(), id); err != nil || r.Restored != want {
			t.Errorf("%+v, %v; want restored %t", r, err, want)
		}
	}
}

// random compares the projection with a fold in memory, however the log is cut
// into batches and replayed.
func random(t *testing.T, b *bundle) {
	rapid.Check(t, func(r *rapid.T) {
		b.empty(t)
		ids := []task.ID{b.id(), b.id(), b.id(), b.id(), b.id(), b.id()}
		want := map[string][]string{}
		seen := map[string]bool{}
		var log []convstore.Applied
		for i := range rapid.IntRange(1, 40).Draw(r, "records") {
			session := rapid.SampledFrom([]string{"a", "b"}).Draw(r, "session")
			id := rapid.SampledFrom(ids).Draw(r, "task")
			record := b.turn(session, id, fmt.Sprint(i))
			if rapid.IntRange(0, 7).Draw(r, "kind") == 0 {
				record = b.record(conversation.Deleted, session, "")
				delete(want, session)
				for _, id := range ids {
					delete(seen, session+string(id))
				}
			} else if !seen[session+string(id)] {
				seen[session+string(id)] = true
				want[session] = append(want[session], fmt.Sprint(i))
			}
			log = append(log, convstore.Applied{Record: record, Offset: int64(i)})
		}
		for at := 0; at < len(log); {
			from := rapid.IntRange(0, at).Draw(r, "from")
			to := rapid.IntRange(at, len(log)).Draw(r, "to")
			if err := b.store.Apply(t.Context(), 0, int64(from), int64(to), log[from:to]); err != nil {
				r.Fatal(err)
			}
			at = to
		}
		for _, session := range []string{"a", "b"} {
			if diff := cmp.Diff(want[session], b.said(t, session)); diff != "" {
				r.Fatalf("session %s (-want +got):\n%s", session, diff)
			}
		}
		if at, err := b.store.Projection(t.Context(), 0); err != nil || at.Next != int64(len(log)) || !strings.Contains(rediskey.Conversations(0), "{c0}") {
			r.Fatalf("it stands at %+v, %v", at, err)
		}
	})
}
