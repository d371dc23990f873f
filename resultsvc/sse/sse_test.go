package sse_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/resultsvc/sse"
	"github.com/penstock/penstock/schema/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keys lets everybody in until they are revoked.
type keys struct{ revoked atomic.Bool }

func (k *keys) Authenticate(ctx context.Context, bearer string) (auth.Principal, error) {
	if k.revoked.Load() {
		return auth.Principal{}, auth.ErrUnauthenticated
	}
	return auth.Dev{}.Authenticate(ctx, bearer)
}

func TestARevokedKeyLosesItsStream(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	defer rdb.Close()
	store := taskstore.New(rdb, taskstore.Params{Partitions: 1})
	follower := follow.New(store, eventlog.New(rdb, eventlog.Params{Partitions: 1}), follow.Params{})
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	quiet, known := slog.New(slog.DiscardHandler), &keys{}
	server := httpserver.New(httpserver.DefaultConfig(), quiet, prometheus.NewRegistry())
	sse.New(store, follower, minter, sse.Params{Heartbeat: 10 * time.Millisecond, Recheck: 10 * time.Millisecond}, quiet, prometheus.NewRegistry()).
		Register(server.Echo(), httpserver.Authenticate(known, auth.ScopeRead), httpserver.Authenticate(known, auth.ScopeRead))
	front := httptest.NewServer(server.Echo())
	defer front.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/v1/tasks/"+string(minter.New("dev", time.Now()))+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := front.Client().Do(req)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", res, err)
	}
	defer res.Body.Close()
	some := make([]byte, 512)
	for range 5 { // it goes on while the key is good
		if _, err := res.Body.Read(some); err != nil {
			t.Fatal(err)
		}
	}
	known.revoked.Store(true)
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Error(err)
	}
}
