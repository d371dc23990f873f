package bulk

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/schema/task"
)

// ledger folds penstock.control into files and batches, the same on every
// process; see joblog for what decides who runs a batch.
type ledger struct {
	*joblog.Mark
	mu      sync.Mutex
	files   map[string]*File
	batches map[string]*batch
	deleted map[string]struct{} // files, lately: nobody waits for them to come
}

// Bounds of what one tenant may have, and so of what every process holds.
const (
	maxFiles = 10_000 // files that have not expired
	maxOpen  = 100    // batches that have not ended
	// batchLife is how long an ended batch can be asked for.
	batchLife = 30 * 24 * time.Hour
)

func newLedger() *ledger {
	return &ledger{Mark: joblog.NewMark(), files: map[string]*File{}, batches: map[string]*batch{}, deleted: map[string]struct{}{}}
}

// apply folds one entry. heard is when its author was alive, by our clock.
func (g *ledger) apply(e entry, heard time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch e.Type {
	case entryFile:
		g.files[e.ID] = e.File
	case entryDeleted:
		delete(g.files, e.ID)
		g.deleted[e.ID] = struct{}{}
	case entryCreated:
		g.create(e)
	default:
		if b, ok := g.batches[e.ID]; ok && !b.over() {
			g.applyTo(b, e, heard)
		}
	}
}

func (g *ledger) create(e entry) {
	if _, twice := g.batches[e.ID]; !twice {
		g.batches[e.ID] = &batch{Batch: Batch{ID: e.ID, Status: Validating, Spec: *e.Spec, CreatedAt: e.At}}
	}
}

func (g *ledger) applyTo(b *batch, e entry, heard time.Time) {
	switch e.Type {
	case entryClaimed:
		b.seat.Claim(e.Owner, e.Epoch, heard)
	case entryCancelled:
		b.cancel(e.At)
	default:
		if b.seat.Heard(e.Owner, e.Epoch, heard) {
			g.applyOwners(b, e)
		}
	}
}

// applyAfterEnd folds an entry of the present owner of a batch that has ended.
func (b *batch) applyAfterEnd(e entry) {
	switch e.Type {
	case entryTold:
		b.told = true
		b.seat.Leave()
	case entryReleased:
		b.seat.Leave()
	}
}

// applyOwners folds an entry of the present owner. Whoever was replaced writes
// in vain.
func (g *ledger) applyOwners(b *batch, e entry) {
	if b.Status.Ended() {
		b.applyAfterEnd(e)
		return
	}
	switch e.Type {
	case entryValidated:
		if b.Total = e.Total; b.Status == Validating {
			b.Status, b.InProgressAt = InProgress, e.At
		}
	case entryFailed:
		b.Faults = e.Faults
		b.end(Failed, e.At)
	case entrySegment:
		b.collect(e.Segment)
	case entryFinalizing:
		if b.Status == InProgress {
			b.Status, b.FinalizingAt = Finalizing, e.At
		}
	case entryEnded:
		b.Output, b.Errors, b.Faults = g.keep(e.Output), g.keep(e.Errors), e.Faults
		b.end(e.Status, e.At)
	case entryReleased:
		b.seat.Leave()
	}
}

// keep adds a file that a batch made and returns its id, if there is one.
func (g *ledger) keep(f *File) string {
	if f == nil {
		return ""
	}
	g.files[f.ID] = f
	return f.ID
}

// cancel counts while there is something to stop.
func (b *batch) cancel(at time.Time) {
	if b.Status == Validating || b.Status == InProgress {
		b.Status, b.CancellingAt = Cancelling, at
	}
}

func (b *batch) collect(s *segment) {
	if s.N != b.segments {
		return // a repeat of one whose acknowledgement was lost
	}
	b.segments++
	b.done.addAll(s.Lines)
	b.Counts = b.Counts.plus(s.Counts)
	if s.Output != nil {
		b.outputs = append(b.outputs, *s.Output)
	}
	if s.Errors != nil {
		b.errors = append(b.errors, *s.Errors)
	}
}

// forget drops what nobody can ask for any more, and returns the files that
// expired.
func (g *ledger) forget(now time.Time) (expired []File) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.files, func(_ string, f *File) bool {
		over := !now.Before(f.ExpiresAt)
		if over {
			expired = append(expired, *f)
		}
		return over
	})
	clear(g.deleted)
	maps.DeleteFunc(g.batches, func(_ string, b *batch) bool {
		return b.Status.Ended() && now.Sub(b.EndedAt) > batchLife
	})
	return expired
}

// file returns a tenant's file that has not expired.
func (g *ledger) file(tenant, id string, now time.Time) (File, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f, ok := g.files[id]; ok && f.Tenant == tenant && now.Before(f.ExpiresAt) {
		return *f, true
	}
	return File{}, false
}

// wasDeleted reports whether a file was deleted lately.
func (g *ledger) wasDeleted(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.deleted[id]
	return ok
}

// Page says which part of a list is wanted.
type Page struct {
	After     string // id of the last one seen; empty: from the beginning
	Limit     int
	Ascending bool // oldest first
}

func page[T any](all []T, p Page, id func(T) string) (out []T, more bool) {
	slices.SortFunc(all, func(a, b T) int {
		if p.Ascending {
			return cmp.Compare(id(a), id(b))
		}
		return cmp.Compare(id(b), id(a))
	})
	if p.After != "" {
		i, found := slices.BinarySearchFunc(all, p.After, func(v T, after string) int {
			if p.Ascending {
				return cmp.Compare(id(v), after)
			}
			return cmp.Compare(after, id(v))
		})
		if found {
			i++
		}
		all = all[i:]
	}
	if len(all) > p.Limit {
		return all[:p.Limit], true
	}
	return all, false
}

// listFiles returns a page of a tenant's files; an empty purpose is any.
func (g *ledger) listFiles(tenant string, purpose Purpose, p Page, now time.Time) ([]File, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := []File{}
	for _, f := range g.files {
		if f.Tenant == tenant && (purpose == "" || f.Purpose == purpose) && now.Before(f.ExpiresAt) {
			all = append(all, *f)
		}
	}
	return page(all, p, func(f File) string { return f.ID })
}

// listBatches returns a page of a tenant's batches.
func (g *ledger) listBatches(tenant string, p Page) ([]Batch, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := []*batch{}
	for _, b := range g.batches {
		if b.Spec.Tenant == tenant {
			all = append(all, b)
		}
	}
	some, more := page(all, p, func(b *batch) string { return b.ID })
	out := make([]Batch, len(some))
	for i, b := range some {
		out[i] = b.view()
	}
	return out, more
}

// batch returns a tenant's batch.
func (g *ledger) batch(tenant, id string) (Batch, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b, ok := g.batches[id]; ok && b.Spec.Tenant == tenant {
		return b.view(), true
	}
	return Batch{}, false
}

// keyed returns the batch that a tenant made with an idempotency key.
func (g *ledger) keyed(tenant, key string) (Batch, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.batches {
		if key != "" && b.Spec.Tenant == tenant && b.Spec.Key == key {
			return b.view(), true
		}
	}
	return Batch{}, false
}

// held counts a tenant's files, and its batches that have not ended.
func (g *ledger) held(tenant string) (files, open int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.files {
		if f.Tenant == tenant {
			files++
		}
	}
	for _, b := range g.batches {
		if b.Spec.Tenant == tenant && !b.Status.Ended() {
			open++
		}
	}
	return files, open
}

// reads returns the batch of a file that has not ended, if there is one.
func (g *ledger) reads(file string) (batch string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.batches {
		if b.Spec.Input == file && !b.Status.Ended() {
			return b.ID, true
		}
	}
	return "", false
}

// size returns how many files there are, and batches of each status.
func (g *ledger) size() (files int, batches map[Status]int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	batches = map[Status]int{}
	for _, b := range g.batches {
		batches[b.Status]++
	}
	return len(g.files), batches
}

// offers returns the batches without a living owner, those that end first first.
func (g *ledger) offers(now time.Time, lease time.Duration) []joblog.Offer {
	g.mu.Lock()
	defer g.mu.Unlock()
	var free []*batch
	for _, b := range g.batches {
		if !b.over() && b.seat.Free(now, lease) {
			free = append(free, b)
		}
	}
	slices.SortFunc(free, func(a, b *batch) int {
		return cmp.Or(a.Spec.ExpiresAt.Compare(b.Spec.ExpiresAt), cmp.Compare(a.ID, b.ID))
	})
	out := make([]joblog.Offer, len(free))
	for i, b := range free {
		out[i] = joblog.Offer{Job: b.ID, Epoch: b.seat.Epoch + 1}
	}
	return out
}

// tenure is one process's ownership of a batch: what was there when it began,
// and what it has added since.
type tenure struct {
	id       string
	epoch    int
	spec     Spec
	status   Status
	total    int
	counts   Counts
	done     lineSet
	segments int
	outputs  []task.Ref
	errors   []task.Ref
}

// granted returns the tenure if the claim of owner and epoch won.
func (g *ledger) granted(o joblog.Offer, owner string) (*tenure, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, ok := g.batches[o.Job]
	if !ok || !b.seat.Is(owner, o.Epoch) || b.over() {
		return nil, false
	}
	return &tenure{
		id: b.ID, epoch: o.Epoch, spec: b.view().Spec, status: b.Status, total: b.Total, counts: b.Counts, done: slices.Clone(b.done),
		segments: b.segments, outputs: slices.Clone(b.outputs), errors: slices.Clone(b.errors),
	}, true
}

// standing says whether a tenure goes on, and in which status of its batch.
func (g *ledger) standing(t *tenure, owner string) (Status, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, ok := g.batches[t.id]
	if !ok || !b.seat.Is(owner, t.epoch) || b.over() {
		return "", false
	}
	return b.Status, true
}

// owed returns the batch of a tenure if it has ended and somebody must be told
// so.
func (g *ledger) owed(t *tenure) (Batch, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, ok := g.batches[t.id]
	if !ok || !b.Status.Ended() || b.over() {
		return Batch{}, false
	}
	return b.view(), true
}
