package project_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/resultsvc/project"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/topic"
)

func TestConversationsReachRedisAndComeBack(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic.Conversations))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	kafka := kafkaclient.Config{Brokers: cluster.ListenAddrs()}
	log := slog.New(slog.DiscardHandler)
	writer, err := kafkaclient.New(kafka, log, kafkaclient.ProducerOpts(1<<20)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(writer.Close)
	mr := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mr.Addr(), MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = rdb.Close() })
	store := convstore.New(rdb, convstore.Params{Partitions: partitions})
	pub := tasktopic.NewPublisher(writer, tasktopic.Params{ResultsPartitions: partitions})

	b := setup(t) // for its ids
	const sessions, turns = 7, 3
	for range turns {
		for s := range sessions {
			now := time.Now()
			if _, err := pub.Conversation(t.Context(), &conversation.Record{
				SchemaVersion: 1, Step: conversation.Turned, Tenant: "acme", SessionID: string(rune('a' + s)), TaskID: b.minter.New("acme", now),
				At: now, Until: now.Add(time.Hour), Lane: "lane", Content: json.RawMessage(`[]`),
			}); err != nil {
				t.Fatal(err)
			}
		}
	}

	p := project.New(project.Conversations(store), project.Params{Check: 20 * time.Millisecond}, log, prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx, kafka); err != nil {
			t.Error(err)
		}
	})
	defer func() { cancel(); wg.Wait() }()
	for range 2 {
		for s := range sessions {
			awaitTurns(t, store, string(rune('a'+s)), turns)
		}
		mr.FlushAll()
	}
}

func awaitTurns(t *testing.T, store *convstore.Store, session string, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := store.Session(ctx, "acme", session, 100)
		if err == nil && len(s.Turns) == want {
			return
		}
		if err != nil && !errors.Is(err, convstore.ErrUnknown) && !errors.Is(err, convstore.ErrRebuilding) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("session %s is %+v, %v; want %d turns", session, s, err, want)
		case <-tick.C:
		}
	}
}
