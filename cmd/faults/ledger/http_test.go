package ledger

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func serve(t *testing.T, h http.HandlerFunc) Doors {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return Doors{Producers: []string{srv.URL}, Results: []string{srv.URL}}
}

func answer(w http.ResponseWriter, status int, data any) {
	raw, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	body, err := json.Marshal(api.Envelope{Data: raw})
	if err != nil {
		panic(err)
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func TestDriver(t *testing.T) {
	load := Load{Name: "d", Tasks: 1, Tenants: []string{DevTenant}}
	for name, c := range map[string]struct {
		statuses []int // of the first submits; 0 breaks the connection; then 202
		want     Answer
		tries    int
	}{
		"accepted at once":                       {nil, Accepted, 1},
		"an unknown answer is repeated":          {[]int{503, 504}, Accepted, 3},
		"too many requests are repeated":         {[]int{429}, Accepted, 2},
		"a refusal is final":                     {[]int{400, 400}, Refused, 1},
		"a refusal after an unknown is unknown":  {[]int{503, 400}, Unknown, 2},
		"a server's own fault is not a refusal":  {[]int{500}, Accepted, 2},
		"an answer without sense is not a 202":   {[]int{299}, Accepted, 2},
		"a lost answer is found again by itself": {[]int{0}, Accepted, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var (
				mu   sync.Mutex
				keys = map[string]int{}
				n    int
			)
			doors := serve(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				keys[r.Header.Get("Idempotency-Key")]++
				n++
				switch status := append(append([]int{}, c.statuses...), 202, 202, 202)[n-1]; status {
				case 0:
					panic(http.ErrAbortHandler)
				case 202:
					answer(w, status, api.Accepted{TaskID: "task_1"})
				case 299:
					w.WriteHeader(200)
				default:
					w.WriteHeader(status)
				}
			})
			b := NewBook()
			told := 0
			d := Driver{Doors: doors, Book: b, OnAccept: func(Entry) { told++ }}
			if err := d.Run(t.Context(), load); err != nil {
				t.Fatal(err)
			}
			got := b.Entries()
			if len(got) != 1 || got[0].Answer != c.want || got[0].Tries != c.tries || d.Began() != 1 {
				t.Errorf("%+v", got)
			}
			if len(keys) != 1 || keys["d-0-0"] != c.tries {
				t.Errorf("keys %v", keys)
			}
			if (told == 1) != (c.want == Accepted) {
				t.Errorf("told of %d accepted tasks", told)
			}
		})
	}
}

func TestDriverRepeatsAShare(t *testing.T) {
	var mu sync.Mutex
	ids := map[string]int{}
	doors := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		key := r.Header.Get("Idempotency-Key")
		ids[key]++
		id := "task_" + key
		if ids[key] > 1 {
			id += "-again" // what must not be
		}
		answer(w, 202, api.Accepted{TaskID: task.ID(id)})
	})
	b := NewBook()
	d := Driver{Doors: doors, Book: b, Again: 0.1, Clients: 2}
	if err := d.Run(t.Context(), Load{Name: "r", Tasks: 100, Tenants: []string{DevTenant}}); err != nil {
		t.Fatal(err)
	}
	if len(b.broken) != 10 || b.broken[0].Invariant != "I2" {
		t.Errorf("%d of 10 repeats are noticed", len(b.broken))
	}
}

func TestWatcherResumesAtTheNextService(t *testing.T) {
	_, e := one(t)
	f := fence(t, 1)
	send := func(w http.ResponseWriter, ev event.Event) {
		raw, err := json.Marshal(ev)
		if err != nil {
			panic(err)
		}
		_, _ = fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", ev.ID, ev.Type, raw)
		_ = http.NewResponseController(w).Flush()
	}
	delta := func(seq uint64, text string) event.Event {
		typ := event.Delta
		if seq == 0 {
			typ = event.Started
		}
		return event.Event{ID: event.ID{Fence: f, Seq: seq}, Type: typ, TaskID: e.ID, Text: text}
	}
	end := event.OfTerminal(&terminal.Terminal{TaskID: e.ID, Status: task.Succeeded, Output: &task.Output{Text: "ab"}}, 0)
	for name, c := range map[string]struct {
		second func(http.ResponseWriter, *http.Request)
		broken []string
	}{
		"after the last id": {func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Last-Event-ID"); got != delta(1, "").ID.String() {
				t.Errorf("resumed after %q", got)
			}
			send(w, delta(2, "b"))
			send(w, end)
		}, nil},
		"and sees what is sent twice": {func(w http.ResponseWriter, _ *http.Request) {
			send(w, delta(1, "a"))
			send(w, delta(2, "b"))
			send(w, end)
		}, []string{"I4"}},
		"and notes that it is told of no such task": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
		}, []string{"I1"}},
	} {
		t.Run(name, func(t *testing.T) {
			first := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				send(w, delta(0, ""))
				send(w, delta(1, "a"))
				panic(http.ErrAbortHandler)
			})
			doors := serve(t, c.second)
			doors.Results = append(first.Results, doors.Results...)
			b := NewBook()
			w := NewWatcher(t.Context(), doors, b)
			defer w.Close()
			w.Watch(e)
			if err := w.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(append([]string{}, c.broken...), found(b.broken)); d != "" {
				t.Errorf("%s\n%+v", d, b.broken)
			}
		})
	}
}

func TestPoller(t *testing.T) {
	b, e := one(t)
	var mu sync.Mutex
	n := 0
	doors := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch n++; n {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.WriteHeader(http.StatusNotFound)
		case 3:
			answer(w, 200, api.Task{TaskID: e.ID, Status: task.Queued})
		default:
			answer(w, 200, api.Task{TaskID: e.ID, Status: task.Succeeded})
		}
	})
	p := Poller{Doors: doors, Book: b}
	open, err := p.Drain(t.Context())
	if err != nil || open != 0 {
		t.Fatalf("%d are open, %v", open, err)
	}
	if d := cmp.Diff([]string{"I1"}, found(b.broken)); d != "" {
		t.Errorf("a 404: %s", d)
	}
	if d := cmp.Diff(PollCounts{Polls: 2, Unavailable: 1}, b.polls); d != "" {
		t.Error(d)
	}
}

func TestForeignReads(t *testing.T) {
	doors := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasSuffix(r.Header.Get("Authorization"), "of b"):
			t.Errorf("asked with %q", r.Header.Get("Authorization"))
		case strings.HasSuffix(r.URL.Path, "/events"):
			answer(w, 200, nil) // what must not be
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	b := NewBook()
	j := Load{Tasks: 1, Tenants: []string{"a"}}.Job(0)
	b.asked(j)
	b.accepted(j, "task_1")
	if err := Foreign(t.Context(), doors, b, 10); err == nil {
		t.Error("a run without a stranger proves nothing")
	}
	doors.Keys = map[string]string{"a": "key of a", "b": "key of b"}
	if err := Foreign(t.Context(), doors, b, 10); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"I7"}, found(b.broken)); d != "" {
		t.Error(d)
	}
}

// profile is of a process with two idle connections and one that is used.
const profile = `goroutine profile: total 24
18 @ 0x1 0x2
#	0x1	main.work+0x1	/main.go:1

3 @ 0x1 0x3
#	0x3	net/http.(*persistConn).writeLoop+0xa2	/net/http/transport.go:2

2 @ 0x1 0x4
#	0x4	bufio.(*Reader).Peek+0x53		/bufio/bufio.go:3
#	0x5	net/http.(*persistConn).readLoop+0xb1	/net/http/transport.go:3

1 @ 0x1 0x6
#	0x6	net/http.(*persistConn).readLoop+0xb1	/net/http/transport.go:4
`

func TestMeasure(t *testing.T) {
	doors := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
			_, _ = io.WriteString(w, profile)
			return
		}
		_, _ = io.WriteString(w, "go_goroutines 24\n")
	})
	part := Part{Name: "me", Admin: doors.Results[0], PID: os.Getpid()}
	u, err := Measure(t.Context(), part)
	if err != nil || u.Goroutines != 20 || u.Resident < 1<<20 {
		t.Fatalf("%+v, %v", u, err)
	}
	for name, c := range map[string]struct {
		base  map[int]Usage
		limit int64
		want  int
	}{
		"as before":               {map[int]Usage{part.PID: {Goroutines: 20 - Spare}}, 1 << 40, 0},
		"more than a few":         {map[int]Usage{part.PID: {Goroutines: 19 - Spare}}, 1 << 40, 1},
		"started anew":            {nil, 1 << 40, 0},
		"more memory than it may": {nil, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := leaking(t.Context(), []Part{part}, c.base, c.limit); err != nil || len(got) != c.want {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	b := NewBook()
	if err := Leaks(t.Context(), b, []Part{part}, nil, 1<<40); err != nil || len(b.broken) != 0 {
		t.Errorf("%v, %v", err, b.broken)
	}
}

func TestWriteKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	keys, err := WriteKeys(path, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	open, err := auth.OpenKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	for tenant, key := range keys {
		if p, err := open.Authenticate(t.Context(), key); err != nil || p.Tenant != tenant {
			t.Errorf("the key of %s is that of %q: %v", tenant, p.Tenant, err)
		}
	}
}
