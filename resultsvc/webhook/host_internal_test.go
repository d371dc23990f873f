package webhook

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/schema/webhook"
)

func queued(hs *hosts, host string, n int) []*delivery {
	var out []*delivery
	for range n {
		d := &delivery{entry: &entry{}, host: host, state: webhook.Pending}
		hs.add(d)
		out = append(out, d)
	}
	return out
}

func launched(fs []flight) map[string]int {
	out := map[string]int{}
	for _, f := range fs {
		out[f.d.host]++
	}
	return out
}

func TestAHostTakesNoMoreThanItsShare(t *testing.T) {
	hs := newHosts(Params{Concurrency: 10, PerHost: 3})
	queued(hs, "busy", 50)
	queued(hs, "quiet", 2)
	first := hs.launch()
	if got := launched(first); got["busy"] != 3 || got["quiet"] != 2 {
		t.Errorf("launched %v", got)
	}
	if again := hs.launch(); len(again) != 0 {
		t.Errorf("%d more although none landed", len(again))
	}
	hs.land(first[0], webhook.Accepted, 200, time.Now())
	if next := hs.launch(); len(next) != 1 {
		t.Errorf("%d after one landed", len(next))
	}
}

func TestHostsTakeTurns(t *testing.T) {
	hs := newHosts(Params{Concurrency: 6, PerHost: 6})
	for i := range 3 {
		queued(hs, fmt.Sprint("host", i), 10)
	}
	if got := launched(hs.launch()); got["host0"] != 2 || got["host1"] != 2 || got["host2"] != 2 {
		t.Errorf("launched %v", got)
	}
}

func TestADeadHostIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hs := newHosts(Params{Concurrency: 10, PerHost: 1})
		queued(hs, "dead", 20)
		fail := func() int {
			fs := hs.launch()
			for _, f := range fs {
				hs.land(f, webhook.Unreachable, 0, time.Now())
			}
			return len(fs)
		}
		for i := range tripAfter {
			if fail() != 1 {
				t.Fatalf("attempt %d was not made", i)
			}
		}
		if fail() != 0 || hs.resting() != 1 || !hs.blocked() {
			t.Errorf("called although it rests; %d rest", hs.resting())
		}
		queued(hs, "alive", 1)
		if got := launched(hs.launch()); got["alive"] != 1 {
			t.Errorf("another host waits for the dead one: %v", got)
		}
		time.Sleep(restFor + time.Second)
		if fail() != 1 || fail() != 0 {
			t.Error("after its rest it is not tried once")
		}
		time.Sleep(restFor + time.Second)
		for _, f := range hs.launch() {
			hs.land(f, webhook.Refused, 404, time.Now()) // it answers, if not as we like
		}
		if hs.resting() != 0 || len(hs.launch()) != 1 {
			t.Error("a host that answers is still left alone")
		}
	})
}

func TestIdleHostsAreForgotten(t *testing.T) {
	hs := newHosts(Params{Concurrency: 10, PerHost: 1})
	queued(hs, "one", 1)
	queued(hs, "two", 2)
	for _, f := range hs.launch() {
		hs.land(f, webhook.Accepted, 200, time.Now())
	}
	hs.forgetIdle(time.Now())
	if len(hs.byName) != 2 {
		t.Errorf("%d hosts", len(hs.byName))
	}
	hs.forgetIdle(time.Now().Add(2 * idleHost))
	if len(hs.byName) != 1 {
		t.Errorf("%d hosts; want the one with a delivery", len(hs.byName))
	}
}

func TestWhatIsSettledOrGoneIsNotCalled(t *testing.T) {
	hs := newHosts(Params{Concurrency: 10, PerHost: 10})
	ds := queued(hs, "host", 3)
	ds[0].gone = true
	ds[1].state = webhook.GivenUp
	if fs := hs.launch(); len(fs) != 1 || fs[0].d != ds[2] {
		t.Errorf("%d launched", len(fs))
	}
}
