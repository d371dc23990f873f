package redrive

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/schema/deadletter"
)

// ledger folds penstock.control into the jobs, the same on every worker; see
// joblog for what decides who runs one.
type ledger struct {
	*joblog.Mark
	mu       sync.Mutex
	jobs     map[string]*job
	selected map[string][]Ref // of jobs whose created entry has not come yet
	pending  []string         // keys of selected, oldest first
}

const (
	// maxPending bounds selections whose creator died before the created entry.
	maxPending = 32
	// maxEnded bounds the ended jobs that are remembered.
	maxEnded = 1000
	// maxOpen bounds the jobs that have not ended: each holds its letters.
	maxOpen = 100
)

func newLedger() *ledger {
	return &ledger{Mark: joblog.NewMark(), jobs: map[string]*job{}, selected: map[string][]Ref{}}
}

// apply folds one entry. heard is when its author was alive, by our clock.
func (g *ledger) apply(e entry, heard time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch e.Type {
	case entrySelected:
		g.selectLetters(e)
	case entryCreated:
		g.create(e, heard)
	default:
		if j, ok := g.jobs[e.Job]; ok {
			j.apply(e, heard)
		}
	}
	if j, ok := g.jobs[e.Job]; ok && j.State.Ended() {
		g.forgetEnded()
	}
}

func (g *ledger) selectLetters(e entry) {
	if _, known := g.selected[e.Job]; !known {
		g.pending = append(g.pending, e.Job)
	}
	g.selected[e.Job] = append(g.selected[e.Job], e.Letters...)
	if len(g.pending) > maxPending {
		delete(g.selected, g.pending[0])
		g.pending = g.pending[1:]
	}
}

func (g *ledger) create(e entry, heard time.Time) {
	if _, twice := g.jobs[e.Job]; twice {
		return
	}
	letters := g.selected[e.Job]
	delete(g.selected, e.Job)
	g.pending = slices.DeleteFunc(g.pending, func(id string) bool { return id == e.Job })
	j := &job{
		Job: Job{
			ID: e.Job, State: JobPending, Spec: *e.Spec, Total: e.Total, CreatedAt: e.At, UpdatedAt: e.At,
			SkippedFor: map[Reason]int{}, SkippedExamples: []Skip{}, RedrivenOf: map[deadletter.Disposition]int{},
		},
		letters: letters, done: map[Ref]bool{},
	}
	j.note(&e)
	g.jobs[e.Job] = j
	if len(letters) != e.Total { // the head of the topic passed its retention
		j.Reason = "the list of its letters is past the retention of the control topic"
		j.end(JobCancelled, e.At)
	}
}

func (g *ledger) forgetEnded() {
	var ended []*job
	for _, j := range g.jobs {
		if j.State.Ended() {
			ended = append(ended, j)
		}
	}
	if len(ended) <= maxEnded {
		return
	}
	oldest := slices.MinFunc(ended, func(a, b *job) int { return cmp.Compare(a.ID, b.ID) })
	delete(g.jobs, oldest.ID)
}

func (j *job) apply(e entry, heard time.Time) {
	if j.State.Ended() {
		return
	}
	j.UpdatedAt = e.At
	j.speed.tick(e.At)
	if j.seat.Heard(e.Owner, e.Epoch, heard) && e.Outcomes != nil {
		j.Outcomes = *e.Outcomes
	}
	switch e.Type {
	case entryClaimed:
		j.claim(e, heard)
	case entryStep:
		j.step(e.Step, e.At)
	case entryJudged:
		j.judged = true
	case entryReleased:
		j.release(e)
	case entryPaused:
		j.stop(e, []JobState{JobPending, JobRunning}, JobPausing, JobPaused)
	case entryCancelled:
		j.stop(e, []JobState{JobPending, JobRunning, JobPausing, JobPaused}, JobCancelling, JobCancelled)
	case entryResumed:
		j.resume(e)
	}
}

func (j *job) resume(e entry) {
	switch {
	case j.State != JobPaused && j.State != JobPausing:
		return
	case j.seat.Owner == "":
		j.State = JobPending
	default:
		j.State = JobRunning
	}
	j.Reason = ""
	j.note(&e)
}

func (j *job) claim(e entry, heard time.Time) {
	if !j.State.claimable() || !j.seat.Claim(e.Owner, e.Epoch, heard) {
		return // another worker's claim came first
	}
	j.inherited, j.dirty = j.dirty, true
	if j.State == JobPending {
		j.State = JobRunning
	}
}

func (j *job) step(s *step, at time.Time) {
	if j.done[s.Letter] {
		return // a repeat after a crash
	}
	j.done[s.Letter] = true
	if s.Outcome == Redriven {
		j.Redriven++
		j.RedrivenOf[s.Disposition]++
		j.speed.count(at)
		j.revived = append(j.revived, revived{s.TaskID, s.Generation})
		if len(j.revived) >= 2*maxWatched {
			j.revived = slices.Clone(j.revived[len(j.revived)-maxWatched:])
		}
		return
	}
	j.Skipped++
	j.SkippedFor[s.Reason]++
	if len(j.SkippedExamples) < maxExamples {
		j.SkippedExamples = append(j.SkippedExamples, Skip{s.Letter, s.TaskID, s.Reason})
	}
}

// release ends an ownership; only the present owner's counts. With a reason
// the owner could not go on, and letters may be half done; an aborted job has
// none in flight.
func (j *job) release(e entry) {
	if !j.seat.Is(e.Owner, e.Epoch) {
		return
	}
	j.seat.Leave()
	j.dirty = e.Reason != "" && !e.Aborted
	switch {
	case len(j.done) >= j.Total:
		j.end(JobCompleted, e.At)
	case e.Aborted:
		j.Reason = e.Reason
		j.end(JobAborted, e.At)
	case e.Reason != "":
		j.State, j.Reason = JobPaused, e.Reason
	case j.State == JobCancelling:
		j.end(JobCancelled, e.At)
	case j.State == JobPausing:
		j.State = JobPaused
	default:
		j.State = JobPending
	}
}

// stop moves to a state at once when no letter can be half done, else to the
// one in which an owner finishes those that are.
func (j *job) stop(e entry, from []JobState, soon, now JobState) {
	if !slices.Contains(from, j.State) {
		return
	}
	j.note(&e)
	switch {
	case j.dirty:
		j.State = soon
	case now.Ended():
		j.end(now, e.At)
	default:
		j.State = now
	}
}

// job returns the view of one job.
func (g *ledger) job(id string) (Job, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if j, ok := g.jobs[id]; ok {
		return j.view(), true
	}
	return Job{}, false
}

// list returns the jobs with ids below before (empty: all), newest first.
func (g *ledger) list(state JobState, before string, limit int) (out []Job, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, j := range g.jobs {
		if (state == "" || j.State == state) && (before == "" || j.ID < before) {
			out = append(out, j.view())
		}
	}
	slices.SortFunc(out, func(a, b Job) int { return cmp.Compare(b.ID, a.ID) })
	if len(out) > limit {
		return out[:limit], true
	}
	return out, false
}

// counts returns how many jobs there are in each state.
func (g *ledger) counts() map[JobState]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[JobState]int{}
	for _, j := range g.jobs {
		out[j.State]++
	}
	return out
}

// full reports whether no further job should be created.
func (g *ledger) full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	open := 0
	for _, j := range g.jobs {
		if !j.State.Ended() {
			open++
		}
	}
	return open >= maxOpen
}

// offers returns the jobs without a living owner, oldest first.
func (g *ledger) offers(now time.Time, lease time.Duration) []joblog.Offer {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []joblog.Offer
	for _, j := range g.jobs {
		if j.State.claimable() && j.seat.Free(now, lease) {
			out = append(out, joblog.Offer{Job: j.ID, Epoch: j.seat.Epoch + 1})
		}
	}
	slices.SortFunc(out, func(a, b joblog.Offer) int { return cmp.Compare(a.Job, b.Job) })
	return out
}

// tenure is one worker's ownership of a job.
type tenure struct {
	job       string
	epoch     int
	spec      Spec
	inherited bool      // an owner before may have left letters half done
	undone    []Ref     // in the order of work
	total     int       // letters of the job
	judged    bool      // its canary passed
	revived   []revived // the latest tasks that it put back, at most maxWatched; all of them before it is judged
}

// granted returns the tenure if the claim of owner and epoch won.
func (g *ledger) granted(o joblog.Offer, owner string) (tenure, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	j, ok := g.jobs[o.Job]
	if !ok || !j.seat.Is(owner, o.Epoch) || j.State.Ended() {
		return tenure{}, false
	}
	return tenure{
		job: j.ID, epoch: j.seat.Epoch, spec: j.Spec, inherited: j.inherited, undone: j.undone(), total: j.Total,
		judged: j.judged, revived: slices.Clone(j.revived[max(0, len(j.revived)-maxWatched):]),
	}, true
}

// standing says what the owner of a tenure should do.
type standing int

const (
	standOn   standing = iota // go on
	standStop                 // hand out no more letters, then release
	standOver                 // the job is somebody else's, or ended
)

func (g *ledger) standing(t tenure, owner string) standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	j, ok := g.jobs[t.job]
	switch {
	case !ok || !j.seat.Is(owner, t.epoch) || j.State.Ended():
		return standOver
	case j.State == JobRunning:
		return standOn
	default:
		return standStop
	}
}
