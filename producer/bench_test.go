package producer_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/idsecret"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/producer"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/wire"
)

const ticket = `{"model":"sim-chat","payload":{"text":"Classify this support ticket as billing, outage, how-to or bug: since this morning every ` +
	`export ends in a blank file."},"params":{"max_tokens":8}}`

// BenchmarkAccept is one accepted task over HTTP, with a broker in this
// process. Compare it with BenchmarkBare: the difference is what the ingress
// adds to an Echo handler that only produces.
func BenchmarkAccept(b *testing.B) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		b.Fatal(err)
	}
	defer cluster.Close()
	redis := miniredis.RunT(b)
	models, err := catalog.Parse([]byte(models))
	if err != nil {
		b.Fatal(err)
	}
	cfg := producer.DefaultConfig()
	cfg.Kafka.Brokers = cluster.ListenAddrs()
	cfg.Redis.URL = config.Secret("redis://" + redis.Addr())
	redis.Close() // what Redis costs is not the ingress's, and an embedded one costs most of all
	reg := prometheus.NewRegistry()
	log := slog.New(slog.DiscardHandler)
	server := httpserver.New(cfg.HTTPConfig.Config, log, reg)
	s, err := producer.Open(b.Context(), cfg, producer.Deps{Log: log, Registry: reg, Catalog: models, Follower: idle()})
	if err != nil {
		b.Fatal(err)
	}
	s.Register(server.Echo())
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	drive(b, server.Echo())
	stop()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

// BenchmarkBare is an Echo handler that reads the body and produces a record as
// large as the ingress would.
func BenchmarkBare(b *testing.B) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(12, "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer cluster.Close()
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: cluster.ListenAddrs()}, slog.New(slog.DiscardHandler), kafkaclient.ProducerOpts(64<<20)...)
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	minter, err := idsecret.DefaultConfig().Minter("127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	sample, err := wire.EncodeTask(&task.Task{
		SchemaVersion: 1, ID: minter.New("dev", now), Kind: task.Completion, Source: task.SourceAPI, Tenant: "dev", Model: "sim-chat",
		Class: task.Standard, Payload: task.Payload{Text: ticket[:110]}, Params: task.Params{"max_tokens": json.RawMessage("8")}, Timestamp: now, Deadline: now,
	}, task.Progress{}, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if err != nil {
		b.Fatal(err)
	}
	var headers []kgo.RecordHeader
	for _, h := range sample.Headers {
		headers = append(headers, kgo.RecordHeader(h))
	}
	e := echo.New()
	e.POST("/v1/inference", func(c echo.Context) error {
		if _, err := io.ReadAll(c.Request().Body); err != nil {
			return err
		}
		id := rand.Text() // spreads over the partitions, as task ids do
		if err := cl.ProduceSync(context.Background(), &kgo.Record{Topic: "bare", Key: []byte(id), Value: sample.Value, Headers: headers}).FirstErr(); err != nil {
			return err
		}
		return c.JSON(http.StatusAccepted, map[string]any{"code": 0, "message": "ok", "data": map[string]string{"task_id": id, "status": "queued"}})
	})
	drive(b, e)
}

// drive posts tasks from 64 clients.
func drive(b *testing.B, h http.Handler) {
	web := httptest.NewServer(h)
	defer web.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer client.CloseIdleConnections()
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Post(web.URL+"/v1/inference", "application/json", strings.NewReader(ticket))
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// cpu is what this process has used: on a shared machine the elapsed time says
// little.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
