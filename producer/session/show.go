package session

import (
	"context"
	"errors"
	"time"

	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// maxShown bounds the bytes of messages and answers in one look at a session.
// Older ones are omitted.
const maxShown = 4 << 20

// Show returns a session with its newest turns. Errors: NotFound for one that
// was never begun, was forgotten or has run out; Unavailable while that cannot be
// said.
func (d *Desk) Show(ctx context.Context, tenant, id string, newest int) (api.Session, error) {
	s, err := d.read(ctx, tenant, id, newest)
	switch {
	case errors.Is(err, convstore.ErrUnknown):
		return api.Session{}, fault.New(fault.NotFound, "no such session: it was never begun, was deleted, or has run out")
	case err != nil:
		return api.Session{}, unreadable(err)
	}
	out := d.shown(id, s)
	if len(s.Turns) == 0 {
		return out, nil
	}
	ids := make([]task.ID, len(s.Turns))
	for i, t := range s.Turns {
		ids[i] = t.TaskID
	}
	ctx, cancel := context.WithTimeout(ctx, d.p.Timeout)
	defer cancel()
	found, err := d.p.Results.GetMany(ctx, ids)
	if err != nil {
		return api.Session{}, unreadable(err)
	}
	out.Turns, err = turns(s.Turns, found)
	return out, err
}

func unreadable(err error) error {
	return &fault.Error{
		Code: fault.Unavailable, RetryAfter: time.Second, Err: err,
		Message: "the session cannot be read now; ask again after the time in Retry-After",
	}
}

// shown is a session without its turns.
func (d *Desk) shown(id string, s *convstore.Session) api.Session {
	out := api.Session{SessionID: id, TTL: d.p.Results.Params().TTL.String(), ExpiresAt: s.Until, TurnCount: s.Total, Turns: []api.Turn{}}
	if set := s.Settings; set != nil {
		out.Instructions, out.MaxTokens, out.Labels = set.Instructions, set.MaxTokens, set.Labels
		if set.TTLSeconds > 0 {
			out.TTL = (time.Duration(set.TTLSeconds) * time.Second).String()
		}
	}
	return out
}

// turns shows the newest in full, within the bound.
func turns(of []convstore.Turn, found []taskstore.Found) ([]api.Turn, error) {
	out := make([]api.Turn, len(of))
	room := maxShown
	for i := len(of) - 1; i >= 0; i-- {
		t, err := turn(of[i], found[i])
		if err != nil {
			return nil, err
		}
		if room -= len(t.Messages) + len(t.Answer); room < 0 {
			t.Messages, t.Answer, t.Omitted = nil, nil, true
		}
		out[i] = t
	}
	return out, nil
}

func turn(of convstore.Turn, f taskstore.Found) (api.Turn, error) {
	out := api.Turn{TaskID: of.TaskID, Status: f.View.Status, At: of.At, Messages: of.Content, Omitted: of.ContentRef != nil}
	if f.View.Status != task.Succeeded {
		return out, nil
	}
	if f.View.Output == nil { // in the blob store, or past its time to live
		out.Omitted = true
		return out, nil
	}
	var err error
	if out.Answer, err = conversation.Answer(f.View.Output); err != nil {
		return out, err
	}
	out.Tokens = conversation.Guess(len(of.Content)) + conversation.Tokens(f.View.Output, f.View.Usage, out.Answer)
	return out, nil
}
