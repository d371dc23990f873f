package taskstore

import (
	"context"
	_ "embed"
	"fmt"
	"math"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

//go:embed lua/ends.lua
var endsSource string

var endsScript = redisclient.NewScript(endsSource)

// Ends returns the id of each task's latest terminal, in the order asked: of one
// that was reopened that of the generation before, and zero of one that never
// ended. Thousands of tasks that wait are asked for all the time, so it takes one
// call for all those of a partition, and they have no answer of their own.
func (s *Store) Ends(ctx context.Context, ids []task.ID) ([]event.ID, error) {
	var calls []redisclient.Call
	var asked [][]int // by call
	for partition, some := range rediskey.ByPartition(ids, s.Partition) {
		keys := make([]string, len(some))
		for j, i := range some {
			keys[j] = rediskey.Task(partition, ids[i])
		}
		calls, asked = append(calls, redisclient.Call{Keys: keys}), append(asked, some)
	}
	out := make([]event.ID, len(ids))
	for n, cmd := range endsScript.RunAll(ctx, s.rdb, calls) {
		ended, err := cmd.Int64Slice()
		if err != nil {
			return nil, fmt.Errorf("look for ends: %w", err)
		}
		for ; len(ended) >= 2; ended = ended[2:] {
			at, generation := ended[0]-1, ended[1]
			if at < 0 || at >= int64(len(asked[n])) || generation > math.MaxUint8 {
				return nil, fmt.Errorf("look for ends: reply %v of %d tasks", ended, len(asked[n]))
			}
			out[asked[n][at]] = event.TerminalID(uint8(generation))
		}
	}
	return out, nil
}
