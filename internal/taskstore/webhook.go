package taskstore

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

//go:embed lua/webhook.lua
var webhookSource string

var webhookScript = redisclient.NewScript(webhookSource)

// WebhookLog is what became of the webhook of a task or a batch, up to an offset of
// penstock.webhooks.
type WebhookLog struct {
	webhook.Log
	Offset int64
}

// PutWebhooks shows logs. One that tells less than is shown already changes
// nothing, so they may come in any order. They are kept for as long as a result
// is, from the next attempt on if there is to be one, and may be lost.
func (s *Store) PutWebhooks(ctx context.Context, logs []WebhookLog) error {
	var errs []error
	for chunk := range slices.Chunk(logs, pipelined) {
		calls := make([]redisclient.Call, len(chunk))
		for i, l := range chunk {
			value, err := json.Marshal(l.Log)
			if err != nil {
				return fmt.Errorf("encode log of a webhook: %w", err)
			}
			calls[i] = redisclient.Call{
				Keys: []string{s.webhookKey(l.Subject())},
				Args: []any{l.Offset, value, seconds(s.p.TTL + untilNext(l.Log, time.Now()))},
			}
		}
		for i, cmd := range webhookScript.RunAll(ctx, s.rdb, calls) {
			if err := cmd.Err(); err != nil {
				errs = append(errs, fmt.Errorf("show webhook of %s: %w", chunk[i].Subject(), err))
			}
		}
	}
	return errors.Join(errs...)
}

// untilNext is how long it is to the latest attempt that is to come.
func untilNext(l webhook.Log, now time.Time) time.Duration {
	wait := time.Duration(0)
	for _, d := range l.Deliveries {
		if d.NextAt != nil {
			wait = max(wait, d.NextAt.Sub(now))
		}
	}
	return wait
}

// Webhook returns what became of a task's webhook. Where nothing is known of it,
// complete says whether that means that there is nothing.
func (s *Store) Webhook(ctx context.Context, id task.ID) (l webhook.Log, complete bool, err error) {
	return s.webhook(ctx, webhook.Log{TaskID: id})
}

// BatchWebhook is Webhook of a batch.
func (s *Store) BatchWebhook(ctx context.Context, id string) (l webhook.Log, complete bool, err error) {
	return s.webhook(ctx, webhook.Log{BatchID: id})
}

func (s *Store) webhook(ctx context.Context, of webhook.Log) (l webhook.Log, complete bool, err error) {
	pipe := s.rdb.Pipeline()
	marked := pipe.Exists(ctx, rediskey.Webhooks(s.Partition(task.ID(of.Subject())))) // first: complete, and then unknown, is none
	shown := pipe.HGet(ctx, s.webhookKey(of.Subject()), "v")
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) { // Nil: nothing is known
		return l, false, fmt.Errorf("read webhook of %s: %w", of.Subject(), err)
	}
	l, l.Deliveries = of, []webhook.Delivery{}
	if text := shown.Val(); text != "" {
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return l, false, fmt.Errorf("read webhook of %s: %w", of.Subject(), err)
		}
		return l, true, nil
	}
	return l, marked.Val() > 0, nil
}

// webhookKey lies with the webhooks of the partition that the subject's records
// are in, as those of a task do: a partition's logs are lost or there together.
func (s *Store) webhookKey(subject string) string {
	return rediskey.Webhook(s.Partition(task.ID(subject)), task.ID(subject))
}

// WebhooksLost returns which of the partitions do not have the logs of all their
// webhooks, or may not.
func (s *Store) WebhooksLost(ctx context.Context, partitions []int32) ([]int32, error) {
	pipe := s.rdb.Pipeline()
	marked := make([]*redis.IntCmd, len(partitions))
	for i, p := range partitions {
		marked[i] = pipe.Exists(ctx, rediskey.Webhooks(p))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("look for logs of webhooks: %w", err)
	}
	var lost []int32
	for i, p := range partitions {
		if marked[i].Val() == 0 {
			lost = append(lost, p)
		}
	}
	return lost, nil
}

// WebhooksRestored notes that a partition has the logs of all its webhooks.
func (s *Store) WebhooksRestored(ctx context.Context, partition int32) error {
	if err := s.rdb.Set(ctx, rediskey.Webhooks(partition), 1, 0).Err(); err != nil {
		return fmt.Errorf("note that logs of webhooks are restored: %w", err)
	}
	return nil
}
