package tasktopic

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

// ResultsEnd returns where the partition ends that holds a task's results: every
// terminal of it that was acknowledged before the call lies before that.
func (p *Publisher) ResultsEnd(ctx context.Context, id task.ID) (int64, error) {
	ends, err := kadm.NewClient(p.cl).ListEndOffsets(ctx, topic.Results)
	if err != nil {
		return 0, fmt.Errorf("ask where results end: %w", err)
	}
	partition := topic.ResultsPartition(id, p.p.ResultsPartitions)
	end, ok := ends.Lookup(topic.Results, partition)
	switch {
	case !ok:
		return 0, fmt.Errorf("ask where results end: no partition %d", partition)
	case end.Err != nil:
		return 0, fmt.Errorf("ask where results partition %d ends: %w", partition, end.Err)
	}
	return end.Offset, nil
}
