package consume_test

import (
	"testing"

	"github.com/penstock/penstock/worker/consume"
)

// The client keeps a pause when a partition goes, and would bring it back with
// the partition, paused for nobody's reason and for ever.
func TestAPausedPartitionThatLeavesAndComesBackFlows(t *testing.T) {
	c := startCluster(t, 2)
	c.produce(t, 0, 100)
	c.produce(t, 1, 100)
	limited := consume.Params{LaneRecords: 10, PollRecords: 5}
	first := c.join(t, limited)
	held := first.sink.until(t, "both partitions to reach their limit", func(got []*consume.Delivery) bool {
		return count(got, 0) >= 10 && count(got, 1) >= 10
	})
	second := c.join(t, limited)
	moved := second.sink.until(t, "a partition to move", atLeast(10))[0].Partition
	second.stop()

	had := count(held, moved)
	got := first.sink.until(t, "the partition's records to come back", func(got []*consume.Delivery) bool {
		return count(got, moved) >= had+10
	})
	for _, d := range got {
		d.Settle() // what was held of the time before has no effect, what came back lets more come
	}
	first.sink.until(t, "more of them", func(got []*consume.Delivery) bool { return count(got, moved) >= had+20 })
}

func count(ds []*consume.Delivery, partition int32) (n int) {
	for _, d := range ds {
		if d.Partition == partition {
			n++
		}
	}
	return n
}
