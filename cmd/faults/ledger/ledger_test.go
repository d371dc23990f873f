package ledger

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

func TestLoadIsAFunctionOfItsSeed(t *testing.T) {
	l := Load{Name: "l", Tasks: 400, Tenants: []string{"a", "b"}, Streamed: 0.25, Ordered: 0.5, Marked: 0.1, Marks: []Mark{{Word: "poison", Fate: task.Dead}}, Seed: 7}
	prompts := map[string]bool{}
	streamed, ordered, marked := 0, 0, 0
	classes, tenants := map[task.Class]bool{}, map[string]bool{}
	for n := range l.Tasks {
		j := l.Job(n)
		if d := cmp.Diff(j, l.Job(n)); d != "" {
			t.Fatal(d)
		}
		prompts[promptOf(j.Request.Payload)] = true
		classes[j.Request.Class], tenants[j.Tenant] = true, true
		if j.Request.Stream {
			streamed++
		}
		if j.Request.OrderingKey != "" {
			ordered++
		}
		if poison := j.Mark != ""; poison != (j.Fate == task.Dead) || poison != strings.Contains(promptOf(j.Request.Payload), "poison") {
			t.Errorf("task %d: mark %q, fate %s", n, j.Mark, j.Fate)
		}
		if j.Mark != "" {
			marked++
		}
	}
	if len(prompts) != l.Tasks || len(classes) != 3 || len(tenants) != 2 {
		t.Errorf("%d prompts, classes %v, tenants %v", len(prompts), classes, tenants)
	}
	if streamed < 60 || streamed > 140 || ordered < 150 || ordered > 250 || marked < 15 || marked > 75 {
		t.Errorf("%d streamed, %d ordered, %d marked of 400", streamed, ordered, marked)
	}
}

// one is a book with one accepted task.
func one(t *testing.T) (*Book, Entry) {
	t.Helper()
	b := NewBook()
	j := Load{Name: "one", Tasks: 1, Tenants: []string{DevTenant}}.Job(0)
	b.asked(j)
	b.accepted(j, mint(t))
	e, ok := b.entry(b.Accepted()[0])
	if !ok {
		t.Fatal("the task is not in the book")
	}
	return b, e
}

func mint(t *testing.T) task.ID {
	t.Helper()
	m, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	return m.New(DevTenant, time.Now())
}

// found lists the invariants that a book or a verdict calls broken.
func found(list []Finding) []string {
	out := []string{}
	for _, f := range list {
		out = append(out, f.Invariant)
	}
	return out
}

func TestBook(t *testing.T) {
	t.Run("a terminal that changes breaks I3", func(t *testing.T) {
		b, e := one(t)
		v := api.Task{TaskID: e.ID, Status: task.Succeeded, Output: &task.Output{Text: "x"}}
		b.saw("a", v, time.Now())
		b.saw("b", v, time.Now())
		if len(b.broken) != 0 {
			t.Errorf("the same twice: %+v", b.broken)
		}
		v.Output = &task.Output{Text: "y"}
		b.saw("b", v, time.Now())
		v.Status = task.Failed
		b.saw("b", v, time.Now())
		if d := cmp.Diff([]string{"I3", "I3"}, found(b.broken)); d != "" {
			t.Error(d)
		}
	})
	t.Run("the next generation may end otherwise", func(t *testing.T) {
		b, e := one(t)
		b.saw("a", api.Task{TaskID: e.ID, Status: task.Dead}, time.Now())
		b.saw("a", api.Task{TaskID: e.ID, Generation: 1, Status: task.Succeeded}, time.Now())
		if len(b.broken) != 0 || b.Ended() != 1 || b.EndedAt(e.ID).IsZero() {
			t.Errorf("%+v, %d ended", b.broken, b.Ended())
		}
	})
	t.Run("a poll that forgets a terminal is counted, one that began before it is not", func(t *testing.T) {
		b, e := one(t)
		before := time.Now()
		b.saw("a", api.Task{TaskID: e.ID, Status: task.Succeeded}, before)
		b.saw("a", api.Task{TaskID: e.ID, Status: task.Pending}, before)
		b.saw("a", api.Task{TaskID: e.ID, Status: task.Pending}, time.Now().Add(time.Second))
		if b.polls.Forgotten != 1 {
			t.Errorf("%d forgotten", b.polls.Forgotten)
		}
	})
	t.Run("two tasks of one key break I2", func(t *testing.T) {
		b, e := one(t)
		b.accepted(e.Job, e.ID)
		b.accepted(e.Job, "task_other")
		if d := cmp.Diff([]string{"I2"}, found(b.broken)); d != "" {
			t.Error(d)
		}
	})
	t.Run("a refusal after an unknown answer leaves it unknown", func(t *testing.T) {
		b := NewBook()
		j := Load{Tasks: 2, Tenants: []string{DevTenant}}.Job(0)
		b.asked(j)
		b.answered(j, false, "503")
		b.asked(j)
		b.answered(j, true, "400")
		k := Load{Tasks: 2, Tenants: []string{DevTenant}}.Job(1)
		b.asked(k)
		b.answered(k, true, "400")
		if got := b.Entries(); got[0].Answer != Unknown || got[1].Answer != Refused {
			t.Errorf("%+v", got)
		}
	})
}

func fence(t *testing.T, group int32) event.Fence {
	t.Helper()
	f, err := event.NewFence(0, 0, group, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestStream(t *testing.T) {
	_, e := one(t)
	f1, f2 := fence(t, 1), fence(t, 2)
	at := func(f event.Fence, seq uint64, typ event.Type, text string) event.Event {
		return event.Event{ID: event.ID{Fence: f, Seq: seq}, Type: typ, TaskID: e.ID, Text: text}
	}
	end := func(text string) event.Event {
		return event.OfTerminal(&terminal.Terminal{TaskID: e.ID, Status: task.Succeeded, Output: &task.Output{Text: text}}, 0)
	}
	queued := event.Event{ID: event.QueuedID(), Type: event.Queued, TaskID: e.ID}
	begin := []event.Event{queued, at(f1, 0, event.Started, ""), at(f1, 1, event.Delta, "a")}
	for name, c := range map[string]struct {
		then   []event.Event
		broken []string
		text   textVerdict
	}{
		"whole":                             {[]event.Event{at(f1, 2, event.Delta, "b"), end("ab")}, nil, textWhole},
		"a stream that ended early":         {[]event.Event{end("ab")}, nil, textShort},
		"other pieces than the text":        {[]event.Event{end("xy")}, []string{"I4"}, textNothing},
		"a hole":                            {[]event.Event{at(f1, 3, event.Delta, "b"), end("ab")}, []string{"I4"}, textWhole},
		"a hole that was told":              {[]event.Event{at(f1, 3, event.Gap, ""), at(f1, 4, event.Delta, "z"), end("abz")}, nil, textHoled},
		"an event twice":                    {[]event.Event{at(f1, 1, event.Delta, "a"), end("a")}, []string{"I4"}, textWhole},
		"the terminal twice":                {[]event.Event{end("a"), end("a")}, []string{"I2"}, textWhole},
		"a restart begins anew":             {[]event.Event{at(f2, 0, event.Restart, ""), at(f2, 1, event.Delta, "b"), end("b")}, nil, textWhole},
		"a new fence without restart":       {[]event.Event{at(f2, 0, event.Started, ""), end("")}, []string{"I4"}, textWhole},
		"an older fence after a newer":      {[]event.Event{at(f2, 0, event.Restart, ""), at(f1, 2, event.Delta, "b"), end("")}, []string{"I4"}, textWhole},
		"a snapshot replaces the text":      {[]event.Event{at(f1, 5, event.Snapshot, "abc"), at(f1, 6, event.Delta, "d"), end("abcd")}, nil, textWhole},
		"an event of another task":          {[]event.Event{{ID: event.ID{Fence: f1, Seq: 2}, Type: event.Delta, TaskID: "task_x"}, end("a")}, []string{"I7"}, textWhole},
		"the server goes away in between":   {[]event.Event{{Type: event.Reconnect}, at(f1, 2, event.Delta, "b"), end("ab")}, nil, textWhole},
		"a terminal without what it is for": {[]event.Event{{ID: event.TerminalID(0), Type: event.Failed, TaskID: e.ID}}, []string{"I3"}, textNothing},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook()
			b.watching(e)
			for _, ev := range slices.Concat(begin, c.then) {
				b.watched(e, ev)
			}
			if d := cmp.Diff(append([]string{}, c.broken...), found(b.broken)); d != "" {
				t.Errorf("%s\n%+v", d, b.broken)
			}
			if got := b.streams[e.ID].verdict; got != c.text {
				t.Errorf("text %q, want %q", got, c.text)
			}
			if got := b.streamCounts(); got.Streams != 1 || got.Ended != 1 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// world is a log of one accepted task at offset 5 of a lane.
type world struct {
	b       *Book
	e       Entry
	records []*kgo.Record
}

const lane = "penstock.tasks.default.standard"

func newWorld(t *testing.T) *world {
	t.Helper()
	b, e := one(t)
	w := &world{b: b, e: e}
	w.addTask(t, lane, 5, 0)
	return w
}

func (w *world) add(t *testing.T, name string, offset int64, r wire.Record, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	rec := &kgo.Record{Topic: name, Offset: offset, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
	}
	w.records = append(w.records, rec)
}

func (w *world) log(t *testing.T) *Log {
	t.Helper()
	l, err := NewLog(w.records)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (w *world) task() *task.Task {
	return &task.Task{
		SchemaVersion: 1, ID: w.e.ID, Kind: task.Completion, Source: task.SourceAPI, Tenant: DevTenant, Model: "m", Class: task.Standard,
		Payload: w.e.Request.Payload, Timestamp: time.Unix(1, 0), Deadline: time.Unix(2, 0),
	}
}

func (w *world) addTask(t *testing.T, name string, offset int64, hop uint16) {
	t.Helper()
	r, err := wire.EncodeTask(w.task(), task.Progress{Hop: hop}, "")
	w.add(t, name, offset, r, err)
}

func (w *world) addEnd(t *testing.T, offset int64, s task.Status, text string) {
	t.Helper()
	end := terminal.Terminal{SchemaVersion: 1, TaskID: w.e.ID, Status: s, Generation: new(uint8), Tenant: DevTenant, EndedAt: time.Unix(3, 0)}
	if s == task.Succeeded {
		end.Output = &task.Output{Text: text}
	}
	r, err := wire.EncodeTerminal(&end, "")
	w.add(t, topic.Results, offset, r, err)
}

func (w *world) show(s task.Status, text string) {
	v := api.Task{TaskID: w.e.ID, Status: s}
	if s == task.Succeeded {
		v.Output = &task.Output{Text: text}
	}
	w.b.saw("poll", v, time.Now())
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(*testing.T, *world)
		broken  []string
		fates   int
	}{
		"all is well": {func(t *testing.T, w *world) {
			w.addEnd(t, 3, task.Succeeded, w.e.Want)
			w.addEnd(t, 4, task.Succeeded, "a loser")
			w.show(task.Succeeded, w.e.Want)
		}, nil, 0},
		"no terminal": {func(*testing.T, *world) {}, []string{"I1"}, 0},
		"a terminal that nobody sees": {func(t *testing.T, w *world) {
			w.addEnd(t, 3, task.Succeeded, w.e.Want)
		}, []string{"I1"}, 0},
		"a stream without its end": {func(t *testing.T, w *world) {
			w.addEnd(t, 3, task.Succeeded, w.e.Want)
			w.show(task.Succeeded, w.e.Want)
			w.b.watching(w.e)
		}, []string{"I1"}, 0},
		"the second terminal is shown": {func(t *testing.T, w *world) {
			w.addEnd(t, 3, task.Succeeded, w.e.Want)
			w.addEnd(t, 4, task.Cancelled, "")
			w.show(task.Cancelled, "")
		}, []string{"I3"}, 0},
		"another task's answer": {func(t *testing.T, w *world) {
			w.addEnd(t, 3, task.Succeeded, "not mine")
			w.show(task.Succeeded, "not mine")
		}, []string{"I4"}, 0},
		"a 202 without a record": {func(t *testing.T, w *world) {
			w.records = nil
			w.addEnd(t, 3, task.Succeeded, w.e.Want)
			w.show(task.Succeeded, w.e.Want)
		}, []string{"I6"}, 0},
		"a refusal that was none": {func(t *testing.T, w *world) {
			w.b.entries[w.e.Key].Answer = Refused
		}, []string{"I6"}, 0},
		"a death that was not due": {func(t *testing.T, w *world) {
			w.addEnd(t, 3, task.Dead, "")
			w.show(task.Dead, "")
		}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.arrange(t, w)
			v := Check(w.b, w.log(t), nil)
			if d := cmp.Diff(append([]string{}, c.broken...), found(v.Findings)); d != "" {
				t.Errorf("%s\n%s", d, v)
			}
			if len(v.WrongFate) != c.fates || v.Submitted != 1 {
				t.Errorf("%s", v)
			}
			if v.OK() != (c.broken == nil) || strings.Contains(v.String(), "BROKEN") == v.OK() || len(v.Broken()) != len(c.broken) {
				t.Errorf("it prints badly:\n%s", v)
			}
		})
	}
}

func TestCommitsThatCoverUnfinishedWorkBreakI5(t *testing.T) {
	const results, watermark = topic.Results, int64(6) // one past the task
	for name, c := range map[string]struct {
		arrange   func(*testing.T, *world)
		committed int64
		ends      map[place]int64
		broken    int
	}{
		"nothing covered":           {func(*testing.T, *world) {}, 5, nil, 0},
		"covered, nothing to show":  {func(*testing.T, *world) {}, watermark, nil, 1},
		"its terminal was written":  {func(t *testing.T, w *world) { w.addEnd(t, 3, task.Failed, "") }, watermark, map[place]int64{{results, 0}: 4}, 0},
		"its terminal came later":   {func(t *testing.T, w *world) { w.addEnd(t, 3, task.Failed, "") }, watermark, map[place]int64{{results, 0}: 3}, 1},
		"its next hop was written":  {func(t *testing.T, w *world) { w.addTask(t, "penstock.retry.5s", 9, 1) }, watermark, map[place]int64{{"penstock.retry.5s", 0}: 10}, 0},
		"the same hop is no answer": {func(t *testing.T, w *world) { w.addTask(t, "penstock.retry.5s", 9, 0) }, watermark, map[place]int64{{"penstock.retry.5s", 0}: 10}, 1},
		"its dead letter was written": {func(t *testing.T, w *world) {
			r, err := wire.EncodeDeadLetter(wire.Record{}, deadletter.Letter{
				TaskID: w.e.ID, Disposition: deadletter.Exhausted, Code: fault.Unavailable, DeadAt: time.Unix(5, 0),
				Origin: deadletter.Origin{Topic: lane, Offset: 5, Timestamp: time.Unix(1, 0)},
			})
			w.add(t, topic.DeadLetters, 1, r, err)
		}, watermark, map[place]int64{{topic.DeadLetters, 0}: 2}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.arrange(t, w)
			s := sample{at: time.Now(), commits: map[place]commit{{lane, 0}: {group: "g", offset: c.committed}}, ends: c.ends}
			v := Check(w.b, w.log(t), &Commits{samples: []sample{s, s}})
			got := 0
			for _, f := range v.Findings {
				if f.Invariant == "I5" {
					got++
				}
			}
			if got != c.broken {
				t.Errorf("%d broken, want %d\n%s", got, c.broken, v)
			}
		})
	}
}

func TestCensusCollapsesDuplicates(t *testing.T) {
	w := newWorld(t)
	letter := deadletter.Letter{
		TaskID: w.e.ID, Disposition: deadletter.Exhausted, Code: fault.Unavailable, DeadAt: time.Unix(5, 0),
		Origin: deadletter.Origin{Topic: lane, Offset: 5, Timestamp: time.Unix(1, 0)},
	}
	for i := range 3 {
		if i == 2 {
			letter.Generation = 1
		}
		r, err := wire.EncodeDeadLetter(wire.Record{}, letter)
		w.add(t, topic.DeadLetters, int64(i), r, err)
	}
	w.records = append(w.records, &kgo.Record{Topic: topic.DeadLetters, Offset: 9})
	l := w.log(t)
	if d := cmp.Diff(map[task.ID]int{w.e.ID: 2}, l.Census()); d != "" || len(l.Unread) != 1 {
		t.Errorf("%s, unread %v", d, l.Unread)
	}
}
