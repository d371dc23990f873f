package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock/penstock/cmd/faults/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a network in memory: what is dialled at one end is accepted at the
// other.
type pipes struct {
	accepted chan net.Conn
	once     sync.Once
	closed   chan struct{}
}

func newPipes() *pipes { return &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.accepted <- far:
		return near, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// link is a proxy between a client and a server, in a synctest bubble.
type link struct {
	*proxy.Proxy
	front, back *pipes
}

func openLink(t *testing.T) *link {
	t.Helper()
	l := &link{front: newPipes(), back: newPipes()}
	l.Proxy = proxy.New(l.front, l.back.dial, 1)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// connect returns both ends of a connection through the link.
func (l *link) connect(t *testing.T) (client, server net.Conn) {
	t.Helper()
	client, err := l.front.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.back.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Error(err)
	}
}

// receive reads that many bytes and tells when they were there.
func receive(t *testing.T, c net.Conn, n int) (string, time.Duration) {
	t.Helper()
	since := time.Now()
	buf := make([]byte, n)
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	return string(buf), time.Since(since)
}

// silent reports whether nothing comes for that long.
func silent(t *testing.T, c net.Conn, d time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(make([]byte, 1))
	_ = c.SetReadDeadline(time.Time{})
	netErr, ok := errors.AsType[net.Error](err)
	return n == 0 && ok && netErr.Timeout()
}

func ended(c net.Conn) bool {
	_, err := c.Read(make([]byte, 1))
	return err != nil
}

func TestProxy(t *testing.T) {
	for name, body := range map[string]func(t *testing.T, l *link){
		"passes bytes both ways at once": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			send(t, client, "question")
			if got, took := receive(t, server, 8); got != "question" || took != 0 {
				t.Errorf("%q after %s", got, took)
			}
			send(t, server, "answer")
			if got, took := receive(t, client, 6); got != "answer" || took != 0 {
				t.Errorf("%q after %s", got, took)
			}
		},
		"delays each piece and keeps the order": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			l.Set(proxy.Fault{Latency: 200 * time.Millisecond, Jitter: 100 * time.Millisecond})
			for _, text := range []string{"one", "two", "six"} {
				send(t, client, text)
			}
			got, took := receive(t, server, 9)
			if got != "onetwosix" || took < 100*time.Millisecond || took > 300*time.Millisecond {
				t.Errorf("%q after %s: one delay for all that is under way", got, took)
			}
		},
		"limits the bytes of a second": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			l.Set(proxy.Fault{Bandwidth: 1000})
			var wg sync.WaitGroup
			wg.Go(func() { send(t, client, string(make([]byte, 3000))) })
			_, took := receive(t, server, 3000)
			wg.Wait()
			if took < 2900*time.Millisecond || took > 3100*time.Millisecond {
				t.Errorf("3,000 bytes at 1,000 a second took %s", took)
			}
		},
		"is fast again once a narrow link is healed": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			l.Set(proxy.Fault{Bandwidth: 10})
			var wg sync.WaitGroup
			wg.Go(func() { send(t, client, string(make([]byte, 1000))) })
			wg.Go(func() { <-time.After(time.Second); l.Heal() })
			_, took := receive(t, server, 1000)
			wg.Wait()
			if took > 1100*time.Millisecond {
				t.Errorf("took %s", took)
			}
		},
		"swallows what is sent, and resets at the end who lost bytes": func(t *testing.T, l *link) {
			loser, loserServer := l.connect(t)
			idle, idleServer := l.connect(t)
			l.Set(proxy.Fault{BlackHole: true})
			send(t, loser, "lost")
			if !silent(t, loserServer, 30*time.Second) {
				t.Error("something came through")
			}
			l.Heal()
			if !ended(loser) || !ended(loserServer) {
				t.Error("a connection that lost bytes goes on")
			}
			send(t, idle, "fine")
			if got, _ := receive(t, idleServer, 4); got != "fine" {
				t.Errorf("%q", got)
			}
		},
		"accepts and swallows new connections": func(t *testing.T, l *link) {
			l.Set(proxy.Fault{BlackHole: true})
			client, server := l.connect(t)
			send(t, client, "lost")
			if !silent(t, server, time.Minute) {
				t.Error("something came through")
			}
		},
		"holds bytes and delivers them late": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			l.Set(proxy.Fault{Hold: true})
			send(t, client, "late")
			if !silent(t, server, 30*time.Second) {
				t.Error("something came through")
			}
			l.Heal()
			if got, took := receive(t, server, 4); got != "late" || took != 0 {
				t.Errorf("%q after %s", got, took)
			}
		},
		"tells late that a side has closed": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			l.Set(proxy.Fault{SlowClose: 5 * time.Second})
			send(t, client, "bye")
			_ = client.Close()
			since := time.Now()
			if got, _ := receive(t, server, 3); got != "bye" {
				t.Errorf("%q", got)
			}
			if !ended(server) || time.Since(since) != 5*time.Second {
				t.Errorf("ended after %s", time.Since(since))
			}
		},
		"cuts open connections, refuses new ones, and takes them again": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			l.Set(proxy.Fault{Cut: true})
			if !ended(client) || !ended(server) {
				t.Error("a connection outlives the cut")
			}
			refused, err := l.front.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !ended(refused) {
				t.Error("a new connection passes the cut")
			}
			l.Heal()
			client, server = l.connect(t)
			send(t, client, "again")
			if got, _ := receive(t, server, 5); got != "again" {
				t.Errorf("%q", got)
			}
		},
		"resets what is open and nothing else": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			l.Reset()
			if !ended(client) || !ended(server) {
				t.Error("a connection outlives the reset")
			}
			client, server = l.connect(t)
			send(t, client, "new")
			if got, _ := receive(t, server, 3); got != "new" {
				t.Errorf("%q", got)
			}
		},
		"can wrong one connection and spare its neighbour": func(t *testing.T, l *link) {
			first, firstServer := l.connect(t)
			synctest.Wait()
			for _, c := range l.Conns() {
				c.Set(proxy.Fault{Hold: true})
			}
			second, secondServer := l.connect(t)
			send(t, first, "held")
			send(t, second, "free")
			if got, _ := receive(t, secondServer, 4); got != "free" {
				t.Errorf("%q", got)
			}
			if !silent(t, firstServer, time.Minute) {
				t.Error("the held connection spoke")
			}
		},
		"forgets connections that have ended": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			_ = client.Close()
			_ = server.Close()
			synctest.Wait()
			if n := len(l.Conns()); n != 0 {
				t.Errorf("%d connections are open", n)
			}
		},
		"closes while its connections hold bytes": func(t *testing.T, l *link) {
			client, server := l.connect(t)
			l.Set(proxy.Fault{Hold: true})
			send(t, client, "held")
			_ = l.Close()
			if !ended(server) {
				t.Error("a connection outlives its proxy")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { body(t, openLink(t)) })
		})
	}
}

// TestOverTCP shows what a pipe does not have: resets and half-closed
// connections.
func TestOverTCP(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p, err := proxy.Listen(server.Addr().String(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	connect := func(t *testing.T) (near, far *net.TCPConn) {
		t.Helper()
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		s, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return c.(*net.TCPConn), s.(*net.TCPConn)
	}
	t.Run("a request that is ended by half a close gets its whole answer", func(t *testing.T) {
		near, far := connect(t)
		send(t, near, "all")
		if err := near.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(far); err != nil || string(got) != "all" {
			t.Fatalf("%q, %v", got, err)
		}
		want := bytes.Repeat([]byte("x"), 3<<20)
		var wg sync.WaitGroup
		wg.Go(func() { send(t, far, string(want)); _ = far.Close() })
		got, err := io.ReadAll(near)
		wg.Wait()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("a reset is a reset at both ends", func(t *testing.T) {
		near, far := connect(t)
		p.Reset()
		for _, c := range []net.Conn{near, far} {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v", err)
			}
		}
	})
	t.Run("a target that is away resets, and one that moves is found", func(t *testing.T) {
		p.Target("")
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !ended(c) {
			t.Error("a connection to nowhere is open")
		}
		p.Target(server.Addr().String())
		near, far := connect(t)
		send(t, near, "here")
		if got, _ := receive(t, far, 4); got != "here" {
			t.Errorf("%q", got)
		}
	})
}
