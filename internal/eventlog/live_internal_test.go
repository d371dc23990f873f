package eventlog

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
)

// liveThrough watches one task over a proxy that can stop passing bytes on.
func liveThrough(t *testing.T) (*Live, *miniredis.Miniredis, task.ID, *proxy) {
	t.Helper()
	mr := miniredis.RunT(t)
	p := newProxy(t, mr.Addr())
	rdb := redis.NewClient(&redis.Options{Addr: p.ln.Addr().String(), MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	live := New(rdb, Params{Partitions: 1}).Live()
	live.quiet = 40 * time.Millisecond
	t.Cleanup(func() { _ = live.Close() })
	id := task.ID("task_" + strings.Repeat("0", 48))
	if err := live.Watch(t.Context(), []task.ID{id}); err != nil {
		t.Fatal(err)
	}
	if n, err := live.Receive(t.Context()); err != nil || !n.Ready {
		t.Fatalf("%+v, %v", n, err)
	}
	return live, mr, id, p
}

func TestAQuietConnectionIsKept(t *testing.T) {
	live, mr, id, p := liveThrough(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 3 { // pings pass
			<-p.pinged
		}
		mr.Publish(rediskey.Live(0, id), `256-1 {"type":"delta"}`)
	})
	n, err := live.Receive(t.Context())
	wg.Wait()
	if err != nil || n.Task != id || n.Entry.ID.Seq != 1 {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestADeadConnectionIsNoticed(t *testing.T) {
	live, _, _, p := liveThrough(t)
	p.hole.Lock()
	defer p.hole.Unlock()
	if n, err := live.Receive(t.Context()); err == nil {
		t.Errorf("received %+v", n)
	}
}

// proxy passes bytes on unless hole is held, and tells of each ping.
type proxy struct {
	ln     net.Listener
	hole   sync.Mutex
	pinged chan struct{}
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, pinged: make(chan struct{}, 100)}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				return
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			wg.Go(func() { p.pass(in, out) })
			wg.Go(func() { p.pass(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return p
}

func (p *proxy) pass(from, to net.Conn) {
	r := bufio.NewReader(from)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.HasPrefix(line, "ping") {
			p.pinged <- struct{}{}
		}
		p.hole.Lock()
		_, err = to.Write([]byte(line))
		p.hole.Unlock()
		if err != nil {
			return
		}
	}
}
