package taskstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

const (
	// maxScan bounds the tasks one List looks at: with a rare filter a page may
	// be short, or empty, and still have a cursor.
	maxScan = 2000
	// listChunk is how many index entries of a partition are read at a time.
	listChunk = 128
	// listDefault is the page size when none is asked for.
	listDefault = 50
)

// ErrCursor is returned for a cursor that List did not give.
var ErrCursor = errors.New("not a list cursor")

// Filter chooses tasks. Zero values choose all.
type Filter struct {
	Status task.Status
	Model  string
	Label  string // "name" must be there, "name=value" must be so
	After  string // cursor of the page before
	Limit  int    // tasks on the page; default 50, at most api.MaxList
}

func (f Filter) match(t api.Task) bool {
	if (f.Status != "" && f.Status != t.Status) || (f.Model != "" && f.Model != t.Model) {
		return false
	}
	if f.Label == "" {
		return true
	}
	name, value, exact := strings.Cut(f.Label, "=")
	got, ok := t.Labels[name]
	return ok && (!exact || got == value)
}

// List returns a tenant's tasks, the newest first. Results past their time to
// live are left out and forgotten. Every page but the last bears a cursor.
func (s *Store) List(ctx context.Context, tenant string, f Filter) (api.TaskList, error) {
	after, err := parseCursor(f.After)
	if err != nil {
		return api.TaskList{}, err
	}
	if f.Limit <= 0 {
		f.Limit = listDefault
	}
	f.Limit = min(f.Limit, api.MaxList)
	out := api.TaskList{Tasks: []api.Task{}}
	m := s.newMerge(tenant, after)
	for scanned := 0; scanned < maxScan; {
		chunk, err := m.take(ctx, listChunk)
		if err != nil {
			return out, err
		}
		if len(chunk) == 0 { // the last page
			out.After = ""
			return out, nil
		}
		scanned += len(chunk)
		out.After = chunk[len(chunk)-1].cursor()
		end := out.After
		full, err := s.fill(ctx, &out, tenant, chunk, f)
		if err != nil {
			return out, err
		}
		if full && (out.After != end || m.more(ctx)) {
			return out, nil
		}
	}
	return out, nil
}

// fill adds the entries that match to the page. It reports true once the page
// is full; the cursor then names the last entry that is on it.
func (s *Store) fill(ctx context.Context, page *api.TaskList, tenant string, chunk []indexEntry, f Filter) (bool, error) {
	ids := make([]task.ID, len(chunk))
	for i, e := range chunk {
		ids[i] = e.id
	}
	found, err := s.GetMany(ctx, ids)
	if err != nil {
		return false, err
	}
	var gone []task.ID
	for i, t := range found {
		switch {
		case !t.Known, t.Expired:
			gone = append(gone, ids[i])
		case f.match(t.View):
			page.Tasks = append(page.Tasks, brief(t.View))
		}
		if len(page.Tasks) == f.Limit {
			page.After = chunk[i].cursor()
			break
		}
	}
	return len(page.Tasks) == f.Limit, s.forget(ctx, tenant, gone)
}

// brief leaves out what can be large; a poll of the task has it.
func brief(t api.Task) api.Task {
	t.Output = nil
	return t
}

// forget drops expired tasks from a tenant's index.
func (s *Store) forget(ctx context.Context, tenant string, ids []task.ID) error {
	if len(ids) == 0 {
		return nil
	}
	pipe := s.rdb.Pipeline()
	for _, id := range ids {
		pipe.ZRem(ctx, rediskey.Tenant(s.Partition(id), tenant), string(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("drop expired tasks from index: %w", err)
	}
	return nil
}

// indexEntry is one member of a tenant's index. Lists run from the newest to
// the oldest, and from the largest id to the smallest within a millisecond.
type indexEntry struct {
	created int64 // ms
	id      task.ID
}

func (e indexEntry) compare(other indexEntry) int {
	return cmp.Or(cmp.Compare(other.created, e.created), cmp.Compare(other.id, e.id))
}

func (e indexEntry) cursor() string { return strconv.FormatInt(e.created, 10) + "-" + string(e.id) }

// parseCursor returns the entry after which the page starts; nil for the first.
func parseCursor(s string) (*indexEntry, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // no cursor is the first page
	}
	ms, id, _ := strings.Cut(s, "-")
	created, err1 := strconv.ParseInt(ms, 10, 64)
	parsed, err2 := task.ParseID(id)
	if err1 != nil || err2 != nil || created < 0 {
		return nil, ErrCursor
	}
	return &indexEntry{created, parsed}, nil
}

// merge reads the indexes of all partitions as one.
type merge struct {
	s     *Store
	after *indexEntry
	parts []part
}

// part is one partition's index: a window of it, and how far it was read.
type part struct {
	key    string
	buffer []indexEntry
	offset int64
	done   bool // nothing is left beyond the buffer
}

func (s *Store) newMerge(tenant string, after *indexEntry) *merge {
	m := &merge{s: s, after: after, parts: make([]part, s.p.Partitions)}
	for p := range m.parts {
		m.parts[p].key = rediskey.Tenant(int32(p), tenant)
	}
	return m
}

// take returns the next entries, fewer than n only at the end.
func (m *merge) take(ctx context.Context, n int) ([]indexEntry, error) {
	var out []indexEntry
	for len(out) < n {
		if err := m.refill(ctx); err != nil {
			return nil, err
		}
		newest := -1
		for i := range m.parts {
			if len(m.parts[i].buffer) > 0 && (newest < 0 || m.parts[i].buffer[0].compare(m.parts[newest].buffer[0]) < 0) {
				newest = i
			}
		}
		if newest < 0 {
			break
		}
		out = append(out, m.parts[newest].buffer[0])
		m.parts[newest].buffer = m.parts[newest].buffer[1:]
	}
	return out, nil
}

// more reports whether entries are left. If that cannot be told, the next page
// will.
func (m *merge) more(ctx context.Context) bool {
	if m.refill(ctx) != nil {
		return true
	}
	return slices.ContainsFunc(m.parts, func(p part) bool { return len(p.buffer) > 0 })
}

// refill reads the next window of every partition that has none, until each has
// one or is at its end.
func (m *merge) refill(ctx context.Context) error {
	for {
		pipe := m.s.rdb.Pipeline()
		cmds := make(map[int]*redis.ZSliceCmd)
		for i, p := range m.parts {
			if len(p.buffer) == 0 && !p.done {
				cmds[i] = pipe.ZRevRangeByScoreWithScores(ctx, p.key, m.window(p))
			}
		}
		if len(cmds) == 0 {
			return nil
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("read task index: %w", err)
		}
		for i, c := range cmds {
			m.parts[i].add(c.Val(), m.after)
		}
	}
}

func (m *merge) window(p part) *redis.ZRangeBy {
	newest := "+inf"
	if m.after != nil {
		newest = strconv.FormatInt(m.after.created, 10)
	}
	return &redis.ZRangeBy{Min: "-inf", Max: newest, Offset: p.offset, Count: listChunk}
}

// add takes a window in, less what the pages before have shown.
func (p *part) add(members []redis.Z, after *indexEntry) {
	p.offset += int64(len(members))
	p.done = len(members) < listChunk
	for _, z := range members {
		name, _ := z.Member.(string)
		e := indexEntry{int64(z.Score), task.ID(name)}
		if after == nil || after.compare(e) < 0 {
			p.buffer = append(p.buffer, e)
		}
	}
	slices.SortFunc(p.buffer, indexEntry.compare)
}
