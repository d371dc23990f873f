package taskstore

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
)

//go:embed lua/hint.lua
var hintSource string

var hintScript = redisclient.NewScript(hintSource)

// Hint is what somebody saw of a task that has not ended. Only ID, Tenant and
// Status are required.
type Hint struct {
	ID         task.ID
	Tenant     string
	Status     task.Status // queued or running
	Generation uint8
	Attempt    int // the attempt that runs, or that a retry waits after; 0 when first queued
	Model      string
	Class      task.Class
	Labels     map[string]string
	CreatedAt  time.Time // zero: the id's own time
	Deadline   time.Time // indexed for the sweeper; zero: not said
}

// Hint notes hints in one round trip. They never overwrite a terminal, a
// higher generation or a later attempt, and they may be lost.
func (s *Store) Hint(ctx context.Context, hints []Hint) error {
	calls := make([]redisclient.Call, 0, len(hints))
	for _, h := range hints {
		call, err := s.hintCall(h)
		if err != nil {
			return err
		}
		calls = append(calls, call)
	}
	var errs []error
	for i, cmd := range hintScript.RunAll(ctx, s.rdb, calls) {
		if err := cmd.Err(); err != nil {
			errs = append(errs, fmt.Errorf("hint task %s: %w", hints[i].ID, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) hintCall(h Hint) (redisclient.Call, error) {
	if h.CreatedAt.IsZero() {
		h.CreatedAt = h.ID.Time()
	}
	partition := s.Partition(h.ID)
	args := []any{
		string(h.ID), string(h.Status), int(h.Generation), h.Attempt,
		h.CreatedAt.UnixMilli(), seconds(s.p.MaxAge), "", Due{h.ID, h.Tenant, h.Generation}.member(),
	}
	if !h.Deadline.IsZero() {
		args[6] = h.Deadline.Add(time.Millisecond - 1).UnixMilli() // rounded up: nothing is due early
	}
	if h.Model != "" {
		args = append(args, fieldModel, h.Model)
	}
	if h.Class != "" {
		args = append(args, fieldClass, string(h.Class))
	}
	if len(h.Labels) > 0 {
		labels, err := json.Marshal(h.Labels)
		if err != nil {
			return redisclient.Call{}, fmt.Errorf("hint task %s: %w", h.ID, err)
		}
		args = append(args, fieldLabels, labels)
	}
	return redisclient.Call{
		Keys: []string{rediskey.Task(partition, h.ID), rediskey.Tenant(partition, h.Tenant), rediskey.Due(partition)},
		Args: args,
	}, nil
}
