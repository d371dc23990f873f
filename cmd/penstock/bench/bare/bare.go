// Package bare is the yardstick of the benchmark: an Echo handler that reads
// the body, produces the bytes that the real ingress would, waits for acks=all
// and answers 202. It checks nothing, so no correct ingress can be faster with
// the same broker and client.
package bare

import (
	"context"
	"errors"
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

// Handler is the yardstick. It is safe for concurrent use.
type Handler struct {
	cl     *kgo.Client
	record wire.Record
	ids    []task.ID
	next   atomic.Uint64
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

// prepare encodes one record as the ingress would, and ids to key it by.
func (h *Handler) prepare() error {
	minter, err := task.NewMinter(task.Secret{Key: make([]byte, 32)})
	if err != nil {
		return fmt.Errorf("make ids: %w", err)
	}
	now := time.Now()
	for range 4096 {
		h.ids = append(h.ids, minter.New("dev", now))
	}
	t := &task.Task{
		SchemaVersion: task.SchemaVersion, ID: h.ids[0], Kind: task.Completion, Source: task.SourceAPI,
		Tenant: "dev", Model: Request().Model, Class: task.Standard, Payload: Request().Payload, Params: Request().Params,
		Timestamp: now, Deadline: now.Add(api.DefaultDeadline),
	}
	h.record, err = wire.EncodeTask(t, task.Progress{}, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	return nil
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
	id := h.ids[h.next.Add(1)%uint64(len(h.ids))]
	rec := &kgo.Record{Topic: Topic, Key: []byte(id), Value: h.record.Value, Headers: h.headers()}
	if err := h.cl.ProduceSync(context.WithoutCancel(c.Request().Context()), rec).FirstErr(); err != nil {
		return echo.NewHTTPError(http.StatusServiceUnavailable, err.Error())
	}
	return c.JSON(http.StatusAccepted, map[string]any{
		"code": 0, "message": "ok", "data": map[string]string{"task_id": string(id), "status": "queued"},
	})
}

func (h *Handler) headers() []kgo.RecordHeader {
	out := make([]kgo.RecordHeader, len(h.record.Headers))
	for i, header := range h.record.Headers {
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
	srv := &http.Server{Handler: e, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
