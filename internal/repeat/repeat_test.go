package repeat_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/repeat"
	"github.com/penstock/penstock/schema/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOnMiniredis(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	suite(t, client)
	t.Run("what is kept goes by itself", func(t *testing.T) {
		if err := repeat.New(client).Begin(t.Context(), "kept", "a"); err != nil {
			t.Fatal(err)
		}
		for _, key := range server.Keys() {
			if server.TTL(key) <= 0 {
				t.Errorf("%s stays for ever", key)
			}
		}
	})
	t.Run("a Redis that is away is left alone for a while", func(t *testing.T) {
		m := repeat.New(client)
		server.SetError("away")
		if _, err := m.Again(t.Context(), "x"); err == nil {
			t.Error("no error")
		}
		server.SetError("")
		if err := m.Begin(t.Context(), "x", "a"); err == nil {
			t.Error("it was asked at once")
		}
	})
}

// memory is a Memory whose calls have no errors.
type memory struct {
	t *testing.T
	*repeat.Memory
}

func (m memory) begin(call string, ids ...task.ID) {
	m.t.Helper()
	for _, id := range ids {
		if err := m.Begin(m.t.Context(), call, id); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m memory) again(call string) task.ID {
	m.t.Helper()
	id, err := m.Again(m.t.Context(), call)
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

func (m memory) leave(call string, id task.ID) repeat.Left {
	m.t.Helper()
	at, err := m.Leave(m.t.Context(), call, id)
	if err != nil {
		m.t.Fatal(err)
	}
	return at
}

func (m memory) orphan(call string, at repeat.Left) bool {
	m.t.Helper()
	alone, err := m.Orphan(m.t.Context(), call, at)
	if err != nil {
		m.t.Fatal(err)
	}
	return alone
}

func suite(t *testing.T, client redis.UniversalClient) {
	open := func(t *testing.T) memory { return memory{t, repeat.New(client)} }
	t.Run("a retry takes the call that was left, not one that is served", func(t *testing.T) {
		m := open(t)
		m.begin("a", "one", "two", "three")
		left := m.leave("a", "two")
		if got := m.again("a"); got != "two" {
			t.Errorf("it took %q", got)
		}
		if m.orphan("a", left) {
			t.Error("a call that a retry took is nobody's")
		}
	})
	t.Run("a call that nobody took is nobody's, once", func(t *testing.T) {
		m := open(t)
		m.begin("b", "one")
		left := m.leave("b", "one")
		if !m.orphan("b", left) || m.orphan("b", left) {
			t.Error("want true, then false")
		}
		if got := m.again("b"); got != "" {
			t.Errorf("a retry took %q", got)
		}
	})
	t.Run("a retry joins a call that is served, and then two wait for it", func(t *testing.T) {
		m := open(t)
		m.begin("c", "one")
		if got := m.again("c"); got != "one" {
			t.Fatalf("it joined %q", got)
		}
		if left := m.leave("c", "one"); left != 0 || m.orphan("c", left) {
			t.Error("the other still waits")
		}
		if !m.orphan("c", m.leave("c", "one")) {
			t.Error("both are gone")
		}
	})
	t.Run("a call that is left again is for who left it last", func(t *testing.T) {
		m := open(t)
		m.begin("i", "one")
		first := m.leave("i", "one")
		if got := m.again("i"); got != "one" {
			t.Fatalf("a retry took %q", got)
		}
		second := m.leave("i", "one")
		if m.orphan("i", first) {
			t.Error("the first takes back what a retry took since")
		}
		if got := m.again("i"); got != "one" {
			t.Errorf("the next retry took %q", got)
		}
		if m.orphan("i", second) {
			t.Error("and the second too")
		}
	})
	t.Run("an answered call is forgotten", func(t *testing.T) {
		m := open(t)
		m.begin("d", "one")
		if err := m.Answered(t.Context(), "d", "one"); err != nil {
			t.Fatal(err)
		}
		if got := m.again("d"); got != "" {
			t.Errorf("a retry joined %q", got)
		}
	})
	t.Run("names are apart", func(t *testing.T) {
		m := open(t)
		m.begin("e", "one")
		if got := m.again("f"); got != "" {
			t.Errorf("it joined %q", got)
		}
	})
	t.Run("as many retries at once take as many calls", func(t *testing.T) {
		m := open(t)
		const n = 20
		for i := range n {
			id := task.ID(rune('a' + i))
			m.begin("g", id)
			m.leave("g", id)
		}
		var wg sync.WaitGroup
		took := make([]task.ID, n)
		for i := range n {
			wg.Go(func() { took[i], _ = m.Again(t.Context(), "g") })
		}
		wg.Wait()
		seen := map[task.ID]bool{}
		for _, id := range took {
			seen[id] = true
		}
		if len(seen) != n || seen[""] {
			t.Errorf("%d calls were taken: %v", len(seen), took)
		}
	})
	t.Run("a name keeps a bounded number of calls", func(t *testing.T) {
		m := open(t)
		for i := range 200 {
			gone := task.ID(fmt.Sprint("gone", i))
			m.begin("h", "one", gone)
			m.leave("h", gone)
		}
		for _, key := range []string{"penstock:call:{h}:open", "penstock:call:{h}:left"} {
			n := client.LLen(t.Context(), key).Val() + client.ZCard(t.Context(), key).Val() // one of them is of the wrong type
			if n > 64 || n == 0 {
				t.Errorf("%s has %d", key, n)
			}
		}
	})
}
