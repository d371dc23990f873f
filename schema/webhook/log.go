package webhook

import (
	"time"

	"github.com/penstock/penstock/schema/task"
)

// Bounds of what is told of a task's webhook.
const (
	MaxAttempts    = 10 // of one delivery: there are no more
	MaxGenerations = 4  // the latest
)

// Delivery is how far one delivery is.
type Delivery struct {
	ID         string     `json:"id"` // webhook-id of each attempt
	Type       string     `json:"type"`
	Generation uint8      `json:"generation"`
	State      State      `json:"state"`
	Attempts   []Attempt  `json:"attempts"` // oldest first
	EndedAt    time.Time  `json:"ended_at"` // when the end of its subject was noted
	NextAt     *time.Time `json:"next_attempt_at,omitempty"`
	SettledAt  *time.Time `json:"settled_at,omitempty"`
}

// Log is what the owner of a task or a batch is told of its webhook: the data of
// GET /v1/tasks/{id}/webhook and GET /v1/batches/{id}/webhook. Without a
// delivery there is no webhook, its subject has not ended, or nothing is known
// of it any more.
type Log struct {
	TaskID     task.ID    `json:"task_id,omitempty"`
	BatchID    string     `json:"batch_id,omitempty"` // instead of TaskID
	Deliveries []Delivery `json:"deliveries"`         // oldest first
}

// Subject is the id of the task or batch.
func (l *Log) Subject() string {
	if l.BatchID != "" {
		return l.BatchID
	}
	return string(l.TaskID)
}
