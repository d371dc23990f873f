package recall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/task"
)

// Pauses between two looks, from the first to the longest.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = 100 * time.Millisecond
)

// until looks again and again until there is an answer, an error or no time.
func until(ctx context.Context, look func() (done bool, err error)) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		done, err := look()
		if done || err != nil {
			return err
		}
		if !lifecycle.Pause(ctx, pause) {
			return errLate
		}
	}
}

// register returns the task's session with the task's own turn in it, and the
// turn's place. A turn that is not there yet is written first: records of a
// session lie in one partition, so whoever sees its own sees all before it. A
// turn that two attempts write counts once, where it came first.
func (r *Recaller) register(ctx context.Context, t *task.Task, lane string) (s *convstore.Session, at int, err error) {
	written := false
	err = until(ctx, func() (bool, error) {
		if s, at, err = r.look(ctx, t); err != nil || at >= 0 {
			return at >= 0, err
		}
		if written {
			return false, nil
		}
		written, err = r.write(ctx, t, lane)
		return false, err
	})
	return s, at, err
}

// look finds the task's own turn; -1: it is not there, or not yet.
func (r *Recaller) look(ctx context.Context, t *task.Task) (s *convstore.Session, at int, err error) {
	there, err := r.p.Sessions.Turned(ctx, t.Tenant, t.SessionID, t.ID)
	if err != nil || !there {
		return nil, -1, err
	}
	s, err = r.p.Sessions.Session(ctx, t.Tenant, t.SessionID, convstore.MaxTurns)
	switch {
	case errors.Is(err, convstore.ErrUnknown), errors.Is(err, convstore.ErrRebuilding): // it was deleted just now, or died of age
		return nil, -1, nil
	case err != nil:
		return nil, -1, err
	}
	return s, slices.IndexFunc(s.Turns, func(o convstore.Turn) bool { return o.TaskID == t.ID }), nil
}

// write writes a turn, unless it cannot be said yet how long it is remembered.
func (r *Recaller) write(ctx context.Context, t *task.Task, lane string) (written bool, err error) {
	s, err := r.p.Sessions.Session(ctx, t.Tenant, t.SessionID, 0)
	switch {
	case errors.Is(err, convstore.ErrUnknown):
		s = new(convstore.Session)
	case errors.Is(err, convstore.ErrRebuilding):
		return false, nil
	case err != nil:
		return false, err
	}
	now := r.p.Publisher.BrokerNow().UTC()
	until := now.Add(r.ttl(s.Settings))
	if err := r.keep(ctx, t, s, until); err != nil {
		return false, err
	}
	rec := &conversation.Record{
		SchemaVersion: task.SchemaVersion, Step: conversation.Turned, Tenant: t.Tenant, SessionID: t.SessionID, TaskID: t.ID,
		At: now, Until: until, Lane: lane, Content: t.Payload.Messages, ContentRef: t.Payload.Ref,
	}
	if _, err := r.p.Publisher.Conversation(ctx, rec); err != nil {
		return false, fmt.Errorf("write turn: %w", err)
	}
	return true, nil
}

// ttl is how long a session lives after a turn: as it was opened with, and no
// longer than answers can be read.
func (r *Recaller) ttl(s *conversation.Settings) time.Duration {
	most := r.p.Results.Params().TTL
	if s == nil || s.TTLSeconds == 0 {
		return most
	}
	return min(most, time.Duration(s.TTLSeconds)*time.Second)
}

// keepEvery is the part of the results' time to live after which settings are
// written again. Turns follow one another within that time, and the log holds
// more than it and an eighth.
const keepEvery = 8

// keep writes a session's settings again before the log forgets them.
func (r *Recaller) keep(ctx context.Context, t *task.Task, s *convstore.Session, until time.Time) error {
	if s.Settings == nil || until.Sub(s.Kept) < r.p.Results.Params().TTL/keepEvery {
		return nil
	}
	rec := &conversation.Record{
		SchemaVersion: task.SchemaVersion, Step: conversation.Kept, Tenant: t.Tenant, SessionID: t.SessionID,
		At: s.Made, Until: until, Settings: s.Settings,
	}
	if _, err := r.p.Publisher.Conversation(ctx, rec); err != nil {
		return fmt.Errorf("keep settings: %w", err)
	}
	return nil
}

// moment is where a task stands in its session.
type moment struct {
	lane string
	at   time.Time         // when its turn was written
	ends map[task.ID]int64 // where results ended, once that was asked
}

// ended returns the turns that have succeeded, once it is known of each how it
// ended, or that it does not matter.
func (r *Recaller) ended(ctx context.Context, turns []convstore.Turn, now moment) (succeeded []convstore.Turn, err error) {
	ids := make([]task.ID, len(turns))
	for i, t := range turns {
		ids[i] = t.TaskID
	}
	if len(ids) == 0 {
		return nil, nil
	}
	err = until(ctx, func() (bool, error) {
		states, err := r.p.Results.StatesAt(ctx, ids)
		if err != nil {
			return false, fmt.Errorf("read how turns ended: %w", err)
		}
		succeeded = succeeded[:0]
		for i, s := range states {
			if r.awaited(ctx, turns[i], s, now) {
				return false, nil
			}
			if s.Status == task.Succeeded {
				succeeded = append(succeeded, turns[i])
			}
		}
		return true, nil
	})
	return succeeded, err
}

// awaited reports whether the end of an earlier turn must be there and is not
// seen yet. Those of the task's own lane have ended, or it would not run; of
// others that is known only once the projection has caught up.
func (r *Recaller) awaited(ctx context.Context, t convstore.Turn, s taskstore.Placed, now moment) bool {
	switch {
	case !s.Open(), s.Generation > 0: // a redrive comes when it comes
		return false
	case r.p.Results.Params().Gone(t.TaskID, r.p.Publisher.BrokerNow()):
		return false
	case !s.At.CaughtUp():
		return true
	default:
		return t.Lane == now.lane && !r.handedOn(ctx, t.TaskID, s, now)
	}
}

// handedOn reports whether an earlier turn of the lane that is still open has to
// be behind the task by now: it was published again. If it had ended, it had
// before the task's turn was written; so its end is in the log by now, and a
// projection that holds all of that log and does not show it says that there is
// none. A while passes before anybody asks the brokers: most ends are just late.
func (r *Recaller) handedOn(ctx context.Context, id task.ID, s taskstore.Placed, now moment) bool {
	if r.p.Publisher.BrokerNow().Sub(now.at) <= r.p.Handed {
		return false
	}
	end, asked := now.ends[id]
	if !asked {
		var err error
		if end, err = r.p.Publisher.ResultsEnd(ctx, id); err != nil {
			r.p.Log.Debug("end of results is not known", "err", err)
			return false
		}
		now.ends[id] = end
	}
	return s.At.Next >= end
}
