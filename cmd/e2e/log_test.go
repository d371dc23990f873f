//go:build e2e

package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/cmd/system/topiclog"
	"github.com/penstock/penstock/schema/task"
)

// readAll returns every record of a topic up to its end at the call, in offset
// order within a partition.
func readAll(t *testing.T, name string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := topiclog.ReadAll(ctx, env.kafka, name)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// outcomes folds penstock.results by the one rule.
func outcomes(t *testing.T) map[task.ID]*topiclog.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := topiclog.Outcomes(ctx, env.kafka)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
