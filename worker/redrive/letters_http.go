package redrive

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/wire"
)

// LetterList is the data of GET /admin/v1/dead-letters.
type LetterList struct {
	Letters  []Letter `json:"letters"` // newest first
	After    string   `json:"after,omitempty"`
	Total    int      `json:"total"`    // that match, on all pages
	Complete bool     `json:"complete"` // false while the topic is still being read
	Indexed  int      `json:"indexed"`
	Evicted  int64    `json:"evicted"` // older letters that no filter finds; see the topic itself
}

var filterNames = []string{"tenant", "model", "pool", "code", "disposition", "state", "fingerprint", "since", "until", "text"}

func (q *query) filter() *Filter {
	f := &Filter{
		Tenant: q.text("tenant"), Model: q.text("model"), Pool: q.text("pool"), Code: fault.Code(q.text("code")),
		Disposition: deadletter.Disposition(q.text("disposition")), State: LetterState(q.text("state")),
		Fingerprint: q.text("fingerprint"), Since: q.time("since"), Until: q.time("until"), Text: q.text("text"),
	}
	if q.err == nil {
		q.err = f.check()
	}
	return f
}

func (r *Redriver) listLetters(_ http.ResponseWriter, req *http.Request) (int, any, error) {
	q := readQuery(req, append([]string{"after", "limit"}, filterNames...)...)
	f, limit := q.filter(), q.number("limit", defaultPage, maxPage)
	after, err := parseCursor(q.text("after"))
	if err := errors.Join(q.err, err); err != nil {
		return 0, nil, err
	}
	p := r.index.list(f, after, limit)
	out := LetterList{Letters: p.letters, Total: p.total, Complete: r.journal.CaughtUp()}
	out.Indexed, out.Evicted = r.index.size()
	if out.Letters == nil {
		out.Letters = []Letter{}
	}
	if p.more {
		last := p.letters[len(p.letters)-1]
		out.After = cursor{last.DeadAt, last.ID}.String()
	}
	return http.StatusOK, out, nil
}

// String returns the text that clients send back to go on.
func (c cursor) String() string {
	return strconv.FormatInt(c.at.UnixNano(), 36) + "." + c.id.String()
}

func parseCursor(s string) (*cursor, error) {
	if s == "" {
		return nil, nil
	}
	nanos, ref, ok := strings.Cut(s, ".")
	at, err := strconv.ParseInt(nanos, 36, 64)
	id, refErr := ParseRef(ref)
	if !ok || err != nil || refErr != nil {
		return nil, badRequest("after", "after is not a cursor that this API gave out")
	}
	return &cursor{time.Unix(0, at), id}, nil
}

// Group is letters that died alike.
type Group struct {
	Fingerprint string     `json:"fingerprint"`
	Code        fault.Code `json:"code"`
	Model       string     `json:"model,omitempty"`
	Message     string     `json:"message"` // of the newest
	Count       int        `json:"count"`
	First       time.Time  `json:"first"`
	Last        time.Time  `json:"last"`
	Example     Ref        `json:"example"` // the newest
}

// GroupList is the data of GET /admin/v1/dead-letters/groups.
type GroupList struct {
	Groups   []Group `json:"groups"` // largest first
	Total    int     `json:"total"`  // groups, shown or not
	Letters  int     `json:"letters"`
	Complete bool    `json:"complete"`
}

func (r *Redriver) listGroups(_ http.ResponseWriter, req *http.Request) (int, any, error) {
	q := readQuery(req, append([]string{"limit"}, filterNames...)...)
	f, limit := q.filter(), q.number("limit", defaultPage, maxPage)
	if q.err != nil {
		return 0, nil, q.err
	}
	letters := r.index.all(f, 0)
	groups := groupLetters(letters)
	out := GroupList{Groups: groups[:min(limit, len(groups))], Total: len(groups), Letters: len(letters), Complete: r.journal.CaughtUp()}
	return http.StatusOK, out, nil
}

// groupLetters expects the letters oldest first.
func groupLetters(letters []Letter) []Group {
	by := map[string]*Group{}
	for _, l := range letters {
		g, ok := by[l.Fingerprint]
		if !ok {
			g = &Group{Fingerprint: l.Fingerprint, Code: l.Code, Model: l.Model, First: l.DeadAt}
			by[l.Fingerprint] = g
		}
		g.Count++
		g.Message, g.Last, g.Example = l.Message, l.DeadAt, l.ID
	}
	out := make([]Group, 0, len(by))
	for _, g := range by {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return out
}

// Detail is the data of GET /admin/v1/dead-letters/{id}: the summary, the
// history and, if asked for, the payload.
type Detail struct {
	Letter
	Refused  Reason         `json:"refused,omitempty"` // why a redrive would skip it
	History  []task.Attempt `json:"history"`
	Build    string         `json:"build,omitempty"`
	Key      string         `json:"key,omitempty"`
	Headers  []HeaderText   `json:"headers"`          // ours; strangers' too with the payload
	Redacted bool           `json:"payload_redacted"` // ask with ?payload=true
	// Value is the record's value as it was, when it is JSON; else ValueBase64.
	Value       json.RawMessage `json:"value,omitempty"`
	ValueBase64 string          `json:"value_base64,omitempty"`
	Others      []Ref           `json:"others,omitempty"` // further letters of the task, newest generation first
}

// HeaderText is one header of a record.
type HeaderText struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func (r *Redriver) showLetter(_ http.ResponseWriter, req *http.Request) (int, any, error) {
	q := readQuery(req, "payload")
	payload := q.flag("payload")
	if q.err != nil {
		return 0, nil, q.err
	}
	at, others, err := r.find(req.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	d, err := r.detail(req.Context(), at, payload)
	if err != nil {
		return 0, nil, err
	}
	d.Others = others
	return http.StatusOK, d, nil
}

// find resolves a letter's id or a task's. Only a letter's own id finds one
// that fell out of the index.
func (r *Redriver) find(id string) (Ref, []Ref, error) {
	if at, err := ParseRef(id); err == nil {
		return at, nil, nil
	}
	if _, err := task.ParseID(id); err != nil {
		return Ref{}, nil, badRequest("id", "%q is neither a dead letter's id (<partition>-<offset>) nor a task id", clipped(id))
	}
	letters := r.index.ofTask(task.ID(id))
	if len(letters) == 0 {
		return Ref{}, nil, r.missing("no dead letter of task " + id)
	}
	var others []Ref
	for _, l := range letters[1:] {
		others = append(others, l.ID)
	}
	return letters[0].ID, others, nil
}

func (r *Redriver) missing(what string) error {
	if !r.journal.CaughtUp() {
		return unavailable("%s in the index, which is still being read; try again", what)
	}
	if _, evicted := r.index.size(); evicted > 0 {
		return notFound("%s in the index; it may be one of the %d that fell out of it: use its <partition>-<offset>", what, evicted)
	}
	return notFound("%s", what)
}

// fetchTimeout bounds one read of the dead-letter topic for an admin request.
const fetchTimeout = 5 * time.Second

func (r *Redriver) detail(ctx context.Context, at Ref, payload bool) (Detail, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	rec, err := r.source.Fetch(ctx, at)
	if errors.Is(err, ErrGone) {
		return Detail{}, notFound("there is no dead letter %s, or it is past the topic's retention", at)
	}
	if err != nil {
		r.log.Warn("dead letter not fetched", "partition", at.Partition, "offset", at.Offset, "err", err)
		return Detail{}, unavailable("dead letter %s could not be read from Kafka; try again", at)
	}
	c, err := r.readCandidate(rec)
	if err != nil {
		return Detail{}, notFound("record %s of the dead-letter topic has no readable lineage: %v", at, err)
	}
	d := Detail{Letter: *r.summary(&c, at, time.Time{}), History: c.history(), Build: c.letter.Build, Redacted: !payload}
	d.State = LetterDead
	if l, ok := r.index.letter(at); ok {
		d.Letter = l
	}
	d.Refused = r.refused(&d.Letter, false)
	d.Headers = headersOf(rec, payload)
	if d.History == nil {
		d.History = []task.Attempt{}
	}
	if payload {
		d.Key = strings.ToValidUTF8(string(rec.Key), "\uFFFD")
		d.reveal(rec.Value)
	}
	return d, nil
}

func (d *Detail) reveal(value []byte) {
	if json.Valid(value) {
		d.Value = value
		return
	}
	d.ValueBase64 = base64.StdEncoding.EncodeToString(value)
}

// headersOf shows a record's headers. Strangers' may hold anything, so they
// count as payload; history is shown on its own.
func headersOf(rec wire.Record, all bool) []HeaderText {
	out := []HeaderText{}
	for _, h := range rec.Headers {
		known := strings.HasPrefix(h.Key, "ce_") || h.Key == wire.HeaderTraceparent || h.Key == wire.HeaderContentType
		lineage := strings.HasPrefix(h.Key, "penstock_dlt_") || strings.HasPrefix(h.Key, "kafka_dlt-")
		if (known || all) && !lineage && h.Key != wire.HeaderHistory {
			out = append(out, HeaderText{clipped(h.Key), strings.ToValidUTF8(string(h.Value), "\uFFFD")})
		}
	}
	return out
}
