package session

import (
	"context"
	"errors"
	"time"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// maxShown bounds the bytes of messages and answers in one look at a session, and
// of what is fetched for it from the blob store. Older ones are omitted.
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
	found, err := d.found(ctx, s.Turns)
	if err != nil {
		return api.Session{}, unreadable(err)
	}
	out.Turns, err = d.turns(ctx, s.Turns, found)
	return out, err
}

// found is what is known of the tasks of turns.
func (d *Desk) found(ctx context.Context, of []convstore.Turn) ([]taskstore.Found, error) {
	ids := make([]task.ID, len(of))
	for i, t := range of {
		ids[i] = t.TaskID
	}
	ctx, cancel := context.WithTimeout(ctx, d.p.Timeout)
	defer cancel()
	return d.p.Results.GetMany(ctx, ids)
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
func (d *Desk) turns(ctx context.Context, of []convstore.Turn, found []taskstore.Found) ([]api.Turn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.p.Fetch)
	defer cancel()
	l := look{d.p.Claims, maxShown}
	out := make([]api.Turn, len(of))
	for i := len(of) - 1; i >= 0; i-- {
		var err error
		if out[i], err = l.turn(ctx, of[i], found[i].View); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// look is one look at a session.
type look struct {
	claims Claims
	room   int64 // bytes that may still be shown
}

func (l *look) turn(ctx context.Context, of convstore.Turn, end api.Task) (api.Turn, error) {
	out := api.Turn{TaskID: of.TaskID, Status: end.Status, At: of.At}
	if err := l.asked(ctx, &out, of); err != nil {
		return out, err
	}
	if err := l.answered(ctx, &out, end); err != nil {
		return out, err
	}
	if l.room -= int64(len(out.Messages) + len(out.Answer)); l.room < 0 {
		out.Messages, out.Answer, out.Omitted = nil, nil, true
	}
	return out, nil
}

// asked shows what a turn's task brought.
func (l *look) asked(ctx context.Context, out *api.Turn, of convstore.Turn) error {
	if !l.fits(of.ContentRef) {
		out.Omitted = true
		return nil
	}
	p, release, err := l.claims.Collect(ctx, task.Payload{Messages: of.Content, Ref: of.ContentRef})
	if err != nil {
		return missing(out, err)
	}
	release() // from here on it counts among what is shown
	out.Messages = p.Messages
	return nil
}

// answered shows the answer of a turn that is remembered.
func (l *look) answered(ctx context.Context, out *api.Turn, end api.Task) error {
	if end.Status != task.Succeeded {
		return nil
	}
	if !l.fits(end.OutputRef) {
		out.Omitted = true
		return nil
	}
	whole, release, err := l.claims.Task(ctx, end)
	if err != nil {
		return missing(out, err)
	}
	release()
	if whole.Output == nil { // lost, or past its time to live
		out.Omitted = true
		return nil
	}
	if out.Answer, err = conversation.Answer(whole.Output); err != nil {
		return err
	}
	out.Tokens = conversation.Guess(len(out.Messages)) + conversation.Tokens(whole.Output, whole.Usage, out.Answer)
	return nil
}

// fits reports whether a stored content may be fetched to be shown.
func (l *look) fits(ref *task.Ref) bool { return ref == nil || ref.Bytes <= l.room }

// missing leaves out what is lost. A store that is away may have it still.
func missing(out *api.Turn, err error) error {
	if claimcheck.Fault(err).Code != fault.BlobLost {
		return unreadable(err)
	}
	out.Omitted = true
	return nil
}
