package follow

import (
	"testing"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/task"
)

func TestOnlyTheLastAcknowledgementOfAChannelCounts(t *testing.T) {
	const id = task.ID("task_a")
	f := New(nil, nil, Params{})
	f.connect()
	expect := func(wantOn, wantOff int) {
		t.Helper()
		if on, off := f.difference(); len(on) != wantOn || len(off) != wantOff {
			t.Fatalf("subscribe to %v, leave %v", on, off)
		}
	}
	watchOnce := func() *watch {
		w := &watch{id: id, stream: &Stream{f: f, wake: make(chan struct{}, 1)}}
		f.register([]*watch{w})
		return w
	}
	w := watchOnce()
	expect(1, 0)
	f.release([]*watch{w})
	expect(0, 1)
	w = watchOnce()
	expect(1, 0)
	f.notice(eventlog.Notice{Task: id, Ready: true}) // of the first SUBSCRIBE: it was left since
	if w.feed.ready || w.stream.unready != 1 {
		t.Error("ready before its own subscription stands")
	}
	f.notice(eventlog.Notice{Task: id, Ready: true})
	if !w.feed.ready || w.stream.unready != 0 {
		t.Error("not ready although its subscription stands")
	}
	f.release([]*watch{w})
	w = watchOnce() // dropped and watched again before anybody looked
	expect(0, 0)
	if !w.feed.ready {
		t.Error("not ready although it never was unsubscribed")
	}
	f.disconnect()
	if w.feed.ready || w.stream.unready != 1 || len(w.stream.rereads) != 1 {
		t.Error("a lost connection leaves a watcher content")
	}
}

func TestNobodyWaitsForTheSubscriptionOfTheLatest(t *testing.T) {
	f := New(nil, nil, Params{})
	f.connect()
	s := f.Open()
	defer s.Close()
	s.Add(Watch{ID: "task_a"})
	f.difference()
	f.notice(eventlog.Notice{Task: "task_a", Ready: true})
	s.Add(Watch{ID: "task_b"})
	if got := idsOf(s.readable()); len(got) != 1 || got[0] != "task_a" {
		t.Errorf("may read the history of %v", got)
	}
	if got := s.readable(); len(got) != 0 {
		t.Errorf("may read the history of %v before its subscription stands", idsOf(got))
	}
	f.difference()
	f.notice(eventlog.Notice{Task: "task_b", Ready: true})
	if got := idsOf(s.readable()); len(got) != 1 || got[0] != "task_b" {
		t.Errorf("may read the history of %v", got)
	}
}
