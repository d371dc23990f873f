package redisclient_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/redisclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOpen(t *testing.T) {
	t.Parallel()
	t.Run("connects with the password of the configuration", func(t *testing.T) {
		t.Parallel()
		server := miniredis.RunT(t)
		server.RequireAuth("hunter2")
		cfg := redisclient.DefaultConfig()
		cfg.URL = config.Secret("redis://" + server.Addr())
		cfg.Password = "hunter2"
		client, err := redisclient.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := client.Set(t.Context(), "k", "v", 0).Err(); err != nil {
			t.Error(err)
		}
		if got, _ := server.Get("k"); got != "v" {
			t.Errorf("the server holds %q", got)
		}
	})
	t.Run("fails on a wrong password, without saying it", func(t *testing.T) {
		t.Parallel()
		server := miniredis.RunT(t)
		server.RequireAuth("hunter2")
		client, err := redisclient.Open(t.Context(), redisclient.Config{URL: config.Secret("redis://:hunter3@" + server.Addr())})
		if err == nil || client != nil || strings.Contains(err.Error(), "hunter3") {
			t.Errorf("got %v, %v", client, err)
		}
	})
	t.Run("fails on a URL it cannot read", func(t *testing.T) {
		t.Parallel()
		if _, err := redisclient.Open(t.Context(), redisclient.Config{}); err == nil {
			t.Error("an empty URL was accepted")
		}
	})
}

func TestADeadServerFailsFast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, err := redisclient.New(redisclient.Config{URL: "redis://nowhere:1", PoolSize: 4, Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		start := time.Now()
		if err := client.Ping(t.Context()).Err(); err == nil {
			t.Error("a ping to nowhere was answered")
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("took %v, want at most 3 s", took)
		}
	})
}

func TestASilentServerFailsFastAndACallersDeadlineWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var servers sync.WaitGroup
		client, err := redisclient.New(redisclient.Config{URL: "redis://silent:1", PoolSize: 4, Dialer: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			servers.Go(func() { // swallows every byte, answers none
				buf := make([]byte, 512)
				for {
					if _, err := theirs.Read(buf); err != nil {
						return
					}
				}
			})
			return ours, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer servers.Wait()
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := client.Get(ctx, "k").Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("took %v although the caller had 100 ms", took)
		}
		start = time.Now()
		if err := client.Get(t.Context(), "k").Err(); err == nil {
			t.Error("a silent server was understood")
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("took %v", took)
		}
	})
}
