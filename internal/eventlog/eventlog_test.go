package eventlog_test

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/eventlog/eventlogtest"
	"github.com/penstock/penstock/schema/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOnMiniredis(t *testing.T) {
	eventlogtest.Run(t, func(t *testing.T) redis.UniversalClient {
		t.Helper()
		rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
		t.Cleanup(func() { _ = rdb.Close() })
		return rdb
	})
}

func TestFollows(t *testing.T) {
	id := func(f event.Fence, seq uint64) event.ID { return event.ID{Fence: f, Seq: seq} }
	for _, c := range []struct {
		last, next event.ID
		want       bool
	}{
		{event.ID{}, id(256, 0), true},
		{event.ID{}, id(256, 1), false},
		{event.QueuedID(), id(256, 0), true},
		{id(256, 3), id(256, 4), true},
		{id(256, 3), id(256, 5), false},
		{id(256, 3), id(512, 0), true},
		{id(256, 3), id(512, 1), false},
		{id(256, 3), event.TerminalID(0), true},
		{event.TerminalID(0), id(1<<52+256, 0), true},
	} {
		if got := eventlog.Follows(c.last, c.next); got != c.want {
			t.Errorf("Follows(%s, %s) = %v", c.last, c.next, got)
		}
	}
}

// What a stranger has written into a stream must not bring its reader down.
func TestAnEntryIsToldWithItsID(t *testing.T) {
	for data, want := range map[string]string{
		`{"type":"delta"}`: `{"id":"256-7","type":"delta"}`,
		"\n{ \"a\":1}":     `{"id":"256-7","a":1}`,
		`{}`:               `{"id":"256-7"}`,
		``:                 `{"id":"256-7"}`,
		`{`:                `{"id":"256-7"}`,
		"{ \n":             `{"id":"256-7"}`,
		`[1]`:              `{"id":"256-7"}`,
	} {
		e := eventlog.Entry{ID: event.ID{Fence: 256, Seq: 7}, Data: []byte(data)}
		if got := string(e.AppendJSON(nil)); got != want {
			t.Errorf("%q is told as %s, want %s", data, got, want)
		}
	}
}
