package taskstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
)

//go:embed lua/due.lua
var dueSource string

var dueScript = redisclient.NewScript(dueSource)

// Due is a task of the index of deadlines. Hints put it there, its terminal
// takes it out.
type Due struct {
	ID         task.ID
	Tenant     string
	Generation uint8 // that had the deadline
}

func (d Due) member() string {
	return strconv.Itoa(int(d.Generation)) + " " + string(d.ID) + " " + d.Tenant
}

func parseDue(member string) (Due, error) {
	generation, rest, _ := strings.Cut(member, " ")
	id, tenant, _ := strings.Cut(rest, " ")
	g, err1 := strconv.ParseUint(generation, 10, 8)
	parsed, err2 := task.ParseID(id)
	if err1 != nil || err2 != nil || tenant == "" {
		return Due{}, fmt.Errorf("read index of deadlines: %q is no member of ours", member)
	}
	return Due{parsed, tenant, uint8(g)}, nil
}

// Due takes tasks whose deadline lies before a time, at most n of each results
// partition. Those that are neither dropped nor ended by then come back at the
// time again: two callers rarely take the same, and nobody loses one.
func (s *Store) Due(ctx context.Context, before, again time.Time, n int) ([]Due, error) {
	calls := make([]redisclient.Call, s.p.Partitions)
	for p := range calls {
		calls[p] = redisclient.Call{Keys: []string{rediskey.Due(int32(p))}, Args: []any{before.UnixMilli(), n, again.UnixMilli()}}
	}
	var out []Due
	var errs []error
	for p, cmd := range dueScript.RunAll(ctx, s.rdb, calls) {
		members, err := cmd.StringSlice()
		if err != nil {
			errs = append(errs, fmt.Errorf("take due tasks of partition %d: %w", p, err))
		}
		for _, m := range members {
			d, err := parseDue(m)
			errs = append(errs, err)
			if err == nil {
				out = append(out, d)
			}
		}
	}
	return out, errors.Join(errs...)
}

// PostponeDue leaves tasks in the index that should end by themselves now, so
// that no hint puts them there anew, and looks at them again at a time.
func (s *Store) PostponeDue(ctx context.Context, ended []Due, again time.Time) error {
	if len(ended) == 0 {
		return nil
	}
	pipe := s.rdb.Pipeline()
	for _, d := range ended {
		pipe.ZAddXX(ctx, rediskey.Due(s.Partition(d.ID)), redis.Z{Score: float64(again.UnixMilli()), Member: d.member()})
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("postpone due tasks: %w", err)
	}
	return nil
}

// DropDue takes tasks out of the index of deadlines.
func (s *Store) DropDue(ctx context.Context, gone []Due) error {
	if len(gone) == 0 {
		return nil
	}
	pipe := s.rdb.Pipeline()
	for _, d := range gone {
		pipe.ZRem(ctx, rediskey.Due(s.Partition(d.ID)), d.member())
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("drop due tasks: %w", err)
	}
	return nil
}
