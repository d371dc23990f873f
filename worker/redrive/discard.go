package redrive

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/joblog"
)

// Discard says that an operator decided to leave a letter where it is: lists
// and filters pass over it. The record stays on its topic, and naming its id
// redrives it all the same.
type Discard struct {
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"` // as they say
	Reason string    `json:"reason"`
}

// DiscardRequest is the body of POST /admin/v1/discards. Exactly one of Filter
// and IDs is required, and a reason.
type DiscardRequest struct {
	Filter *Filter  `json:"filter,omitempty"`
	IDs    []string `json:"ids,omitempty"` // of letters or of tasks
	DryRun bool     `json:"dry_run,omitempty"`
	Reason string   `json:"reason"`
}

// Discarded is the data of the answer.
type Discarded struct {
	ID        string `json:"id,omitempty"` // of the discard on penstock.control; absent in a dry run
	DryRun    bool   `json:"dry_run"`
	Discarded int    `json:"discarded"`
	Redriven  int    `json:"redriven"` // letters left out because a job redrove them
}

// deathsPerEntry bounds one discarded entry to about 250 KiB.
const deathsPerEntry = 2_000

func (r *Redriver) discard(w http.ResponseWriter, req *http.Request) (int, any, error) {
	q := readQuery(req)
	by, err := operator(req)
	if err := errors.Join(q.err, err); err != nil {
		return 0, nil, err
	}
	var ask DiscardRequest
	if err := readBody(w, req, &ask); err != nil {
		return 0, nil, err
	}
	if ask.Reason == "" || len(ask.Reason) > maxNote {
		return 0, nil, badRequest("reason", "reason is required, with at most %d bytes: whoever finds the letter later will ask", maxNote)
	}
	if err := checkSelection(ask.Filter, ask.IDs); err != nil {
		return 0, nil, err
	}
	letters, err := r.pick(ask.Filter, ask.IDs)
	if err != nil {
		return 0, nil, err
	}
	out, deaths := Discarded{DryRun: ask.DryRun}, make([]identity, 0, len(letters))
	for i := range letters {
		if letters[i].State == LetterRedriven {
			out.Redriven++
			continue
		}
		deaths = append(deaths, letters[i].identity())
	}
	if out.Discarded = len(deaths); out.Discarded == 0 || ask.DryRun {
		return http.StatusOK, out, nil
	}
	out.ID = joblog.NewID("discard_", r.pub.BrokerNow())
	return http.StatusOK, out, r.writeDiscard(req.Context(), out.ID, by, ask.Reason, deaths)
}

// writeDiscard writes the marks and waits until they are read back. A crash
// between two entries leaves some letters discarded; asking again is harmless.
func (r *Redriver) writeDiscard(ctx context.Context, id, by, reason string, deaths []identity) error {
	ctx, cancel := context.WithTimeout(ctx, sayWait)
	defer cancel()
	var last int64
	for chunk := range slices.Chunk(deaths, deathsPerEntry) {
		at, err := r.journal.Say(ctx, entry{Type: entryDiscarded, Job: id, By: by, Reason: reason, Deaths: chunk})
		if err != nil {
			return r.notWritten(id, err)
		}
		last = at
	}
	r.log.Info("dead letters discarded", "discard", id, "letters", len(deaths), "by", by)
	if err := r.ledger.Await(ctx, last); err != nil {
		return unavailable("discard %s was written, but not read back in time; list the letters to see", id)
	}
	return nil
}
