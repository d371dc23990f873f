package recall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// readAhead is how many results are read in one round trip.
const readAhead = 16

// errReopened: a turn that had succeeded is open. Redis was lost just now.
var errReopened = errors.New("the end of a turn is gone again")

// newest reads turns that succeeded, the newest first. Those whose result is
// past its time to live, or lost with its blob, are left out.
func (r *Recaller) newest(ctx context.Context, turns []convstore.Turn) iter.Seq2[turn, error] {
	return func(yield func(turn, error) bool) {
		newest := slices.Clone(turns)
		slices.Reverse(newest)
		for chunk := range slices.Chunk(newest, readAhead) {
			ends, err := r.ends(ctx, chunk)
			if err != nil {
				yield(turn{}, err)
				return
			}
			for i, end := range ends {
				t, known, err := r.turn(ctx, chunk[i], end)
				if (known || err != nil) && !yield(t, err) {
					return
				}
			}
		}
	}
}

// ends reads the terminals of turns; nil for those past their time to live.
func (r *Recaller) ends(ctx context.Context, turns []convstore.Turn) ([]*terminal.Terminal, error) {
	ids := make([]task.ID, len(turns))
	for i, t := range turns {
		ids[i] = t.TaskID
	}
	ends, states, err := r.p.Results.Terminals(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read answers: %w", err)
	}
	for _, s := range states {
		if s.Open() {
			return nil, errReopened
		}
	}
	return ends, nil
}

// turn joins what was asked to what was answered. It reports false for a turn
// that is not known any more.
func (r *Recaller) turn(ctx context.Context, of convstore.Turn, end *terminal.Terminal) (t turn, known bool, err error) {
	if end == nil {
		return turn{}, false, nil
	}
	if t.asked, err = r.asked(ctx, of); err == nil {
		t.answer, t.tokens, err = r.answered(ctx, end)
	}
	switch {
	case lost(err):
		r.m.lost.Inc()
		r.p.Log.Warn("a turn is forgotten: its content is lost", "task_id", of.TaskID, "err", err)
		return turn{}, false, nil
	case err != nil:
		return turn{}, false, err
	}
	t.tokens += conversation.Guess(sizeOf(t.asked))
	return t, true, nil
}

// errLost: a content is not what it was when it was put.
var errLost = errors.New("content is lost")

func lost(err error) bool {
	return errors.Is(err, errLost) || err != nil && claimcheck.Fault(err).Code == fault.BlobLost
}

// asked is what the turn's task brought.
func (r *Recaller) asked(ctx context.Context, of convstore.Turn) ([]json.RawMessage, error) {
	p, release, err := r.p.Claims.Collect(ctx, task.Payload{Messages: of.Content, Ref: of.ContentRef})
	if err != nil {
		return nil, err
	}
	defer release()
	messages, err := split(p.Messages)
	if err != nil {
		return nil, errLost // what it is instead may not be shown
	}
	return messages, nil
}

// answered is what the turn's task was answered, and how many tokens that has.
func (r *Recaller) answered(ctx context.Context, end *terminal.Terminal) (said json.RawMessage, tokens int, err error) {
	whole, release, err := r.p.Claims.Terminal(ctx, end)
	if err != nil {
		return nil, 0, err
	}
	defer release()
	if whole.Output == nil {
		return nil, 0, errLost
	}
	if said, err = conversation.Answer(whole.Output); err != nil {
		return nil, 0, err
	}
	return said, conversation.Tokens(whole.Output, end.Usage, said), nil
}
