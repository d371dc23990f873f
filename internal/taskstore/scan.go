package taskstore

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
)

//go:embed lua/scanned.lua
var scannedSource string

var scannedScript = redisclient.NewScript(scannedSource)

// Place is a partition of a tasks or retry topic.
type Place struct {
	Topic     string
	Partition int32
}

// scanEpoch is the field of the scan's hash that names it. Each results
// partition bears the same name beside its index: one that does not has lost
// it, and everything is scanned again.
const scanEpoch = "epoch"

// Scan is how far tasks and retry topics were scanned for open tasks.
type Scan struct {
	At    map[Place]int64 // the offset to go on at
	epoch string
}

// ErrScanLost is returned when Redis lost what a scan has put there.
var ErrScanLost = errors.New("redis lost what was scanned")

// Scan returns how far places were scanned. It is a new one when Redis lost the
// positions, or the index of any partition.
func (s *Store) Scan(ctx context.Context) (Scan, error) {
	pipe := s.rdb.Pipeline()
	positions := pipe.HGetAll(ctx, rediskey.Scan)
	marks := make([]*redis.StringCmd, s.p.Partitions)
	for p := range marks {
		marks[p] = pipe.Get(ctx, rediskey.Indexed(int32(p)))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return Scan{}, fmt.Errorf("read scan: %w", err)
	}
	epoch := positions.Val()[scanEpoch]
	for _, m := range marks {
		if epoch == "" || m.Val() != epoch {
			return s.beginScan(ctx)
		}
	}
	at, err := parsePlaces(positions.Val())
	return Scan{at, epoch}, err
}

func (s *Store) beginScan(ctx context.Context) (Scan, error) {
	epoch := rand.Text()
	pipe := s.rdb.Pipeline()
	pipe.Del(ctx, rediskey.Scan)
	pipe.HSet(ctx, rediskey.Scan, scanEpoch, epoch)
	for p := range s.p.Partitions {
		pipe.Set(ctx, rediskey.Indexed(p), epoch, 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return Scan{}, fmt.Errorf("begin scan: %w", err)
	}
	return Scan{map[Place]int64{}, epoch}, nil
}

func parsePlaces(fields map[string]string) (map[Place]int64, error) {
	out := make(map[Place]int64, len(fields))
	for name, value := range fields {
		if name == scanEpoch {
			continue
		}
		topic, partition, _ := strings.Cut(name, "/")
		p, err1 := strconv.ParseInt(partition, 10, 32)
		at, err2 := strconv.ParseInt(value, 10, 64)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("read scan: %q at %q is no place of ours", name, value)
		}
		out[Place{topic, int32(p)}] = at
	}
	return out, nil
}

// SetScanned notes how far the scan has come since. ErrScanLost means that it
// has to begin anew.
func (s *Store) SetScanned(ctx context.Context, scan Scan, at map[Place]int64) error {
	if len(at) == 0 {
		return nil
	}
	args := make([]any, 0, 1+2*len(at))
	args = append(args, scan.epoch)
	for place, offset := range at {
		args = append(args, place.Topic+"/"+strconv.Itoa(int(place.Partition)), offset)
	}
	noted, err := scannedScript.Run(ctx, s.rdb, redisclient.Call{Keys: []string{rediskey.Scan}, Args: args}).Bool()
	if err != nil {
		return fmt.Errorf("note scan: %w", err)
	}
	if !noted {
		return ErrScanLost
	}
	return nil
}

// LeaseScan reports whether the caller may scan for a while: nobody else does.
// It only saves work; two scans do no harm.
func (s *Store) LeaseScan(ctx context.Context, length time.Duration) (bool, error) {
	err := s.rdb.SetArgs(ctx, rediskey.ScanLease, "1", redis.SetArgs{Mode: "NX", TTL: length}).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lease scan: %w", err)
	}
	return true, nil
}

// KeepScan prolongs a lease.
func (s *Store) KeepScan(ctx context.Context, length time.Duration) error {
	if err := s.rdb.PExpire(ctx, rediskey.ScanLease, length).Err(); err != nil {
		return fmt.Errorf("keep scan: %w", err)
	}
	return nil
}
