package follow

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func TestATailedTerminalDoesNotOvertakeHistoryThatCanBeRead(t *testing.T) {
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	for name, applied := range map[string]bool{"confirmed by Redis": true, "ahead of the projector": false} {
		t.Run(name, func(t *testing.T) {
			rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
			defer rdb.Close()
			store := taskstore.New(rdb, taskstore.Params{Partitions: 1})
			f := New(store, eventlog.New(rdb, eventlog.Params{Partitions: 1}), Params{TailGrace: time.Nanosecond, Skew: time.Nanosecond})
			f.tail.begin(time.Now().Add(-time.Hour))
			zero, id := uint8(0), minter.New("acme", time.Now())
			r := &terminal.Terminal{TaskID: id, Status: task.Succeeded, Generation: &zero, Tenant: "acme", EndedAt: time.Now()}
			if err := store.Rebuild(t.Context(), 0, 0, 0); err != nil {
				t.Fatal(err)
			}
			if applied {
				if err := store.Apply(t.Context(), 0, 0, 1, []taskstore.Applied{{Terminal: r}}); err != nil {
					t.Fatal(err)
				}
			}
			c, err := f.Follow(t.Context(), id, event.QueuedID())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			f.Tail(t.Context(), 0, 0, r)
			due, _ := f.tail.ripe(time.Now().Add(time.Second))
			f.deliver(t.Context(), due)
			// Nobody has subscribed yet, so nobody has read history.
			short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if e, err := c.Next(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("history was overtaken by %s, %v", e.Type, err)
			}
		})
	}
}

func TestWhatRedisConfirmedIsToldAlthoughItGoesAway(t *testing.T) {
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	mr := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mr.Addr(), MaxRetries: -1, DialerRetries: 1})
	defer rdb.Close()
	store := taskstore.New(rdb, taskstore.Params{Partitions: 1})
	f := New(store, eventlog.New(rdb, eventlog.Params{Partitions: 1}), Params{TailGrace: time.Nanosecond})
	zero, id := uint8(0), minter.New("acme", time.Now())
	r := &terminal.Terminal{TaskID: id, Status: task.Succeeded, Generation: &zero, Tenant: "acme", EndedAt: time.Now()}
	if err := store.Rebuild(t.Context(), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := store.Apply(t.Context(), 0, 0, 1, []taskstore.Applied{{Terminal: r}}); err != nil {
		t.Fatal(err)
	}
	c, err := f.Follow(t.Context(), id, event.QueuedID())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f.Tail(t.Context(), 0, 0, r)
	deliver := func() {
		due, _ := f.tail.ripe(time.Now().Add(time.Minute))
		f.deliver(t.Context(), due)
	}
	deliver() // Redis has it: the watcher is to read it there
	mr.Close()
	deliver()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if e, err := c.Next(ctx); err != nil || e.Type != event.Succeeded {
		t.Errorf("got %+v, %v", e, err)
	}
}
