// Package bare has the yardsticks of the benchmark, which check nothing.
//
// Handler is an Echo handler that reads the body, produces the bytes that the
// real ingress would, waits for acks=all and answers 202: no correct ingress can
// be faster with the same broker and client. Events is a server of event streams
// that does no more than hold them.
package bare

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// Topic takes the yardstick's records. It has the settings of a tasks topic,
// and nobody reads it.
const Topic = "penstock.bench.bare"

// bufferedBytes is the produce budget, as the ingress has it.
const bufferedBytes = 64 << 20

// variety is how many different records there are. Each has its own id, times
// and trace, as the ingress's have: equal ones would compress to nothing.
const variety = 4096

// Handler is the yardstick. It is safe for concurrent use.
type Handler struct {
	cl      *kgo.Client
	records []wire.Record
	next    atomic.Uint64
}

// Open connects to Kafka and creates Topic. The client has the very options of
// the ingress.
func Open(ctx context.Context, brokers []string, log *slog.Logger) (*Handler, error) {
	cl, err := kafkaclient.New(
		kafkaclient.Config{Brokers: brokers, ClientID: "penstock-bare"}, log,
		kafkaclient.ProducerOpts(bufferedBytes)...)
	if err != nil {
		return nil, err
	}
	if err := kafkaclient.EnsureTopics(ctx, cl, plan(), log); err != nil {
		cl.Close()
		return nil, err
	}
	h := &Handler{cl: cl}
	if err := h.prepare(); err != nil {
		cl.Close()
		return nil, err
	}
	return h, nil
}

func plan() []topic.Topic {
	return []topic.Topic{{Name: Topic, Partitions: 12, Replication: 1, Config: map[string]string{
		"cleanup.policy": "delete", "retention.ms": "3600000", "min.insync.replicas": "1",
	}}}
}

// prepare encodes records as the ingress would.
func (h *Handler) prepare() error {
	minter, err := task.NewMinter(task.Secret{Key: make([]byte, 32)})
	if err != nil {
		return fmt.Errorf("make ids: %w", err)
	}
	for range variety {
		now := time.Now()
		t := &task.Task{
			SchemaVersion: task.SchemaVersion, ID: minter.New("dev", now), Kind: task.Completion, Source: task.SourceAPI,
			Tenant: "dev", Model: Request().Model, Class: task.Standard, Payload: Request().Payload, Params: Request().Params,
			Timestamp: now, Deadline: now.Add(api.DefaultDeadline),
		}
		r, err := wire.EncodeTask(t, task.Progress{}, traceparent())
		if err != nil {
			return fmt.Errorf("encode record: %w", err)
		}
		h.records = append(h.records, r)
	}
	return nil
}

// traceparent is one that nobody started.
func traceparent() string {
	var id [24]byte
	_, _ = rand.Read(id[:]) // never fails since Go 1.24
	return fmt.Sprintf("00-%x-%x-01", id[:16], id[16:])
}

// Request is the task that the benchmark submits everywhere.
func Request() api.SubmitRequest {
	return api.SubmitRequest{
		Model: "sim-chat",
		Payload: task.Payload{
			Text: "Classify this support ticket as billing, outage, how-to or bug: since this morning every export ends in a blank file.",
		},
		Params: task.Params{"max_tokens": []byte("8")},
	}
}

// Close flushes and leaves.
func (h *Handler) Close() { h.cl.Close() }

// accept is the yardstick itself.
func (h *Handler) accept(c echo.Context) error {
	if _, err := io.ReadAll(c.Request().Body); err != nil {
		return err
	}
	r := h.records[h.next.Add(1)%variety]
	rec := &kgo.Record{Topic: Topic, Key: r.Key, Value: r.Value, Headers: headers(r)}
	if err := h.cl.ProduceSync(context.WithoutCancel(c.Request().Context()), rec).FirstErr(); err != nil {
		return echo.NewHTTPError(http.StatusServiceUnavailable, err.Error())
	}
	return c.JSON(http.StatusAccepted, map[string]any{
		"code": 0, "message": "ok", "data": map[string]string{"task_id": string(r.Key), "status": "queued"},
	})
}

func headers(r wire.Record) []kgo.RecordHeader {
	out := make([]kgo.RecordHeader, len(r.Headers))
	for i, header := range r.Headers {
		out[i] = kgo.RecordHeader{Key: header.Key, Value: header.Value}
	}
	return out
}

// Serve answers on a listener until ctx is done.
func (h *Handler) Serve(ctx context.Context, ln net.Listener) error {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.POST("/v1/inference", h.accept)
	e.GET("/readyz", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	return serve(ctx, ln, &http.Server{Handler: e, ReadHeaderTimeout: 5 * time.Second})
}
