package blob

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Swept counts what a Sweep deleted.
type Swept struct {
	Blobs int
	Bytes int64
}

// Sweep deletes the blobs whose day was over for at least so long, and those
// that were kept until a day that is over. Nothing else is asked, so it is safe in
// several processes at once and needs no list of references: olderThan must cover
// the longest life of a record that may hold one. On error some may be deleted;
// the next Sweep goes on.
func (s *Store) Sweep(ctx context.Context, olderThan time.Duration) (Swept, error) {
	var all Swept
	shelves, err := s.k.shelves(ctx)
	slices.SortFunc(shelves, func(a, b shelf) int { return strings.Compare(a.day, b.day) })
	errs := []error{err}
	for _, old := range shelves {
		if !old.over(time.Now(), olderThan) {
			continue
		}
		swept, err := s.k.drop(ctx, old)
		all.Blobs, all.Bytes = all.Blobs+swept.Blobs, all.Bytes+swept.Bytes
		errs = append(errs, err)
	}
	err = errors.Join(errs...)
	s.m.swept(all, err)
	return all, err
}

// sweepEvery is how often Run looks. A day goes at once, so more often would
// find nothing.
const sweepEvery = time.Hour

// Sweeper collects blobs by age until it is stopped.
type Sweeper struct {
	Store     *Store
	OlderThan time.Duration
	Log       *slog.Logger
}

// Run sweeps now and every hour, give or take a fifth, until ctx is done.
func (w Sweeper) Run(ctx context.Context) {
	for {
		swept, err := w.Store.Sweep(ctx, w.OlderThan)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.Log.Warn("blobs were not swept: the next sweep goes on", "err", err)
		case swept.Blobs > 0:
			w.Log.Info("swept blobs", "blobs", swept.Blobs, "bytes", swept.Bytes)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepEvery - sweepEvery/5 + rand.N(2*sweepEvery/5)):
		}
	}
}
