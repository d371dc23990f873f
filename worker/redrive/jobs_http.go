package redrive

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Preview is the data of a dry run. Nothing was written for it.
type Preview struct {
	DryRun        bool           `json:"dry_run"`
	WouldMove     int            `json:"would_move"`
	WouldSkip     int            `json:"would_skip"`
	SkipFor       map[Reason]int `json:"skip_for"`
	ByCode        map[string]int `json:"by_code"` // these four count what would move
	ByDisposition map[string]int `json:"by_disposition"`
	ByModel       map[string]int `json:"by_model"`
	ByPool        map[string]int `json:"by_pool"`
	Beyond        int            `json:"beyond_limit,omitempty"` // further letters that match
	Seconds       float64        `json:"seconds"`                // at the rate asked for
	Evicted       int64          `json:"evicted"`                // letters that no filter finds any more
}

// JobList is the data of GET /admin/v1/redrives.
type JobList struct {
	Jobs  []Job  `json:"jobs"` // newest first
	After string `json:"after,omitempty"`
}

func (r *Redriver) createJob(w http.ResponseWriter, req *http.Request) (int, any, error) {
	q := readQuery(req)
	by, err := operator(req)
	if err := errors.Join(q.err, err); err != nil {
		return 0, nil, err
	}
	var ask Request
	if err := readBody(w, req, &ask); err != nil {
		return 0, nil, err
	}
	if err := ask.check(); err != nil {
		return 0, nil, err
	}
	letters, beyond, err := r.selectLetters(&ask)
	if err != nil {
		return 0, nil, err
	}
	if ask.DryRun {
		p, err := r.preview(req.Context(), letters, beyond, &ask)
		return http.StatusOK, p, err
	}
	if len(letters) == 0 {
		return 0, nil, notFound("no dead letter matches; GET /admin/v1/dead-letters shows which there are")
	}
	j, err := r.create(req.Context(), &ask, by, letters)
	if err == nil {
		w.Header().Set("Location", "/admin/v1/redrives/"+j.ID)
	}
	return http.StatusAccepted, j, err
}

// selectLetters resolves a request to letters, oldest first. A filter that
// does not say otherwise selects letters that nobody redrove yet.
func (r *Redriver) selectLetters(ask *Request) (letters []Letter, beyond int, err error) {
	letters, err = r.pick(ask.Filter, ask.IDs)
	if err != nil {
		return nil, 0, err
	}
	if ask.Limit > 0 && len(letters) > ask.Limit {
		return letters[:ask.Limit], len(letters) - ask.Limit, nil
	}
	return letters, 0, nil
}

// pick returns the letters of a filter or of ids, oldest first.
func (r *Redriver) pick(f *Filter, ids []string) ([]Letter, error) {
	if !r.journal.CaughtUp() {
		return nil, unavailable("the dead-letter index is still being read, so a selection would be incomplete; try again")
	}
	if f == nil {
		return r.byID(ids)
	}
	selected := *f
	if selected.State == "" {
		selected.State = LetterDead
	}
	return r.index.all(&selected, 0), nil
}

// byID resolves ids; all must be known, so that a typing mistake is not a
// silent omission.
func (r *Redriver) byID(ids []string) ([]Letter, error) {
	var out []Letter
	var missing []string
	seen := map[Ref]bool{}
	for _, id := range ids {
		at, _, err := r.find(id)
		if f, ok := errors.AsType[*failure](err); ok && f.status == http.StatusNotFound {
			missing = append(missing, clipped(id))
			continue
		} else if err != nil {
			return nil, err
		}
		l, ok := r.index.letter(at)
		if !ok {
			missing = append(missing, clipped(id))
		} else if !seen[at] {
			seen[at] = true
			out = append(out, l)
		}
	}
	if len(missing) > 0 {
		return nil, &failure{
			status: http.StatusNotFound, code: fault.NotFound, param: "ids",
			message: fmt.Sprintf("%d of %d ids are not in the dead-letter index: %s", len(missing), len(ids), strings.Join(missing[:min(5, len(missing))], ", ")),
		}
	}
	slices.SortFunc(out, func(a, b Letter) int { return older(&a, &b) })
	return out, nil
}

// previewChunk bounds one question to the store.
const previewChunk = 500

// preview says what a job would do, as far as the projection knows now.
func (r *Redriver) preview(ctx context.Context, letters []Letter, beyond int, ask *Request) (Preview, error) {
	p := Preview{
		DryRun: true, Beyond: beyond, SkipFor: map[Reason]int{}, ByCode: map[string]int{},
		ByDisposition: map[string]int{}, ByModel: map[string]int{}, ByPool: map[string]int{},
	}
	_, p.Evicted = r.index.size()
	for chunk := range slices.Chunk(letters, previewChunk) {
		found, err := r.reasons(ctx, chunk, ask.Force)
		if err != nil {
			r.log.Warn("dry run without task states", "err", err)
			return Preview{}, unavailable("the states of the tasks could not be read from Redis; try again")
		}
		for i, reason := range found {
			p.count(&chunk[i], reason)
		}
	}
	p.Seconds = float64(p.WouldMove) / ask.Rate
	return p, nil
}

func (p *Preview) count(l *Letter, reason Reason) {
	if reason != ReasonNone {
		p.WouldSkip++
		p.SkipFor[reason]++
		return
	}
	p.WouldMove++
	p.ByCode[string(l.Code)]++
	p.ByDisposition[string(l.Disposition)]++
	p.ByModel[l.Model]++
	p.ByPool[l.Pool]++
}

// reasons says for each letter why it would be skipped, if it would.
func (r *Redriver) reasons(ctx context.Context, letters []Letter, force bool) ([]Reason, error) {
	out := make([]Reason, len(letters))
	var ids []task.ID
	var at []int
	for i := range letters {
		if out[i] = r.refused(&letters[i], force); out[i] == ReasonNone {
			ids, at = append(ids, letters[i].TaskID), append(at, i)
		}
	}
	if len(ids) == 0 {
		return out, nil
	}
	states, err := r.store.States(ctx, ids)
	if err != nil {
		return nil, err
	}
	for k, s := range states {
		switch judge(s, letters[at[k]].Generation, "") {
		case verdictLost, verdictOurs, verdictOver:
			out[at[k]] = ReasonAlreadyRedriven
		case verdictNever, verdictUnknown:
			out[at[k]] = ReasonNotDead
		}
	}
	return out, nil
}

// sayWait bounds how long a request waits until its entry is folded.
const sayWait = 10 * time.Second

// create writes the job: first its letters, then the entry that makes it
// exist, so that a crash between leaves nothing behind.
func (r *Redriver) create(ctx context.Context, ask *Request, by string, letters []Letter) (Job, error) {
	if r.ledger.full() {
		return Job{}, &failure{
			status: http.StatusConflict, code: fault.Conflict,
			message: fmt.Sprintf("%d redrive jobs have not ended; wait for some, or cancel them", maxOpen),
		}
	}
	id := joblog.NewID("redrive_", r.pub.BrokerNow())
	refs := make([]Ref, len(letters))
	for i, l := range letters {
		refs[i] = l.ID
	}
	ctx, cancel := context.WithTimeout(ctx, sayWait)
	defer cancel()
	for chunk := range slices.Chunk(refs, selectedPerEntry) {
		if _, err := r.journal.Say(ctx, entry{Type: entrySelected, Job: id, Letters: chunk}); err != nil {
			return Job{}, r.notWritten(id, err)
		}
	}
	spec := &Spec{
		Filter: ask.Filter, Rate: ask.Rate, Limit: ask.Limit, Note: ask.Note,
		Canary: *ask.Canary, StopRatio: *ask.StopRatio, Force: ask.Force,
	}
	at, err := r.journal.Say(ctx, entry{Type: entryCreated, Job: id, By: by, Spec: spec, Total: len(refs)})
	if err != nil {
		return Job{}, r.notWritten(id, err)
	}
	r.log.Info("redrive job created", "job", id, "letters", len(refs), "rate", ask.Rate, "by", by)
	return r.settled(ctx, id, at)
}

func (r *Redriver) notWritten(id string, err error) error {
	r.log.Warn("control entry not written", "job", id, "err", err)
	return unavailable("the entry could not be written to Kafka for certain; look for job %s before you try again", id)
}

// settled waits until an entry of a job is folded and returns the job.
func (r *Redriver) settled(ctx context.Context, id string, at int64) (Job, error) {
	if err := r.ledger.Await(ctx, at); err != nil {
		return Job{}, unavailable("the entry was written, but not read back in time; look for job %s", id)
	}
	j, ok := r.ledger.job(id)
	if !ok {
		return Job{}, fmt.Errorf("job %s is not in the ledger after its entry", id)
	}
	return j, nil
}

func (r *Redriver) listJobs(_ http.ResponseWriter, req *http.Request) (int, any, error) {
	q := readQuery(req, "state", "after", "limit")
	limit := q.number("limit", defaultPage, maxPage)
	known := make([]string, 0, 6)
	for _, s := range jobStates() {
		known = append(known, string(s))
	}
	if err := errors.Join(q.err, oneOf("state", q.text("state"), known)); err != nil {
		return 0, nil, err
	}
	jobs, more := r.ledger.list(JobState(q.text("state")), q.text("after"), limit)
	out := JobList{Jobs: jobs}
	if out.Jobs == nil {
		out.Jobs = []Job{}
	}
	if more {
		out.After = jobs[len(jobs)-1].ID
	}
	return http.StatusOK, out, nil
}

func (r *Redriver) showJob(_ http.ResponseWriter, req *http.Request) (int, any, error) {
	j, err := r.known(req.PathValue("id"))
	return http.StatusOK, j, err
}

func (r *Redriver) known(id string) (Job, error) {
	j, ok := r.ledger.job(id)
	switch {
	case ok:
		return j, nil
	case !r.journal.CaughtUp():
		return Job{}, unavailable("the jobs are still being read; try again")
	default:
		return Job{}, notFound("no redrive job %s; GET /admin/v1/redrives shows which there are", clipped(id))
	}
}

// order returns the handler of an operator's wish. Asking twice, or for what
// already is, changes nothing; a wish that the state forbids is a conflict.
func (r *Redriver) order(wish entryType) handlerFunc {
	return func(_ http.ResponseWriter, req *http.Request) (int, any, error) {
		by, err := operator(req)
		if err != nil {
			return 0, nil, err
		}
		j, err := r.known(req.PathValue("id"))
		if err != nil {
			return 0, nil, err
		}
		if already, err := wish.against(j); already || err != nil {
			return http.StatusOK, j, err
		}
		ctx, cancel := context.WithTimeout(req.Context(), sayWait)
		defer cancel()
		at, err := r.journal.Say(ctx, entry{Type: wish, Job: j.ID, By: by})
		if err != nil {
			return 0, nil, r.notWritten(j.ID, err)
		}
		r.log.Info("redrive job ordered", "job", j.ID, "wish", string(wish), "by", by)
		j, err = r.settled(ctx, j.ID, at)
		return http.StatusOK, j, err
	}
}

// against reports whether a job is already as wished, or never will be.
func (t entryType) against(j Job) (already bool, err error) {
	conflict := &failure{
		status: http.StatusConflict, code: fault.Conflict, param: "id",
		message: fmt.Sprintf("job %s is %s: it can no longer be changed", j.ID, j.State),
	}
	switch {
	case t == entryCancelled && (j.State == JobCancelled || j.State == JobCancelling):
		return true, nil
	case j.State.Ended(), j.State == JobCancelling:
		return false, conflict
	case t == entryPaused && (j.State == JobPaused || j.State == JobPausing),
		t == entryResumed && (j.State == JobRunning || j.State == JobPending):
		return true, nil
	}
	return false, nil
}
