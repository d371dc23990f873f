package recall

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Sessions is the projection of what is kept of conversations: *convstore.Store.
type Sessions interface {
	// Turned reports whether a task's turn is there, and all before it are.
	Turned(ctx context.Context, tenant, session string, id task.ID) (bool, error)
	// Session returns a session with the newest turns, oldest first; or
	// convstore.ErrUnknown, or convstore.ErrRebuilding.
	Session(ctx context.Context, tenant, session string, newest int) (*convstore.Session, error)
}

// Results is the projection of how tasks ended: *taskstore.Store.
type Results interface {
	StatesAt(ctx context.Context, ids []task.ID) ([]taskstore.Placed, error)
	Terminals(ctx context.Context, ids []task.ID) ([]*terminal.Terminal, []terminal.State, error)
	Params() taskstore.Params
}

// Publisher writes records of conversations: *tasktopic.Publisher.
type Publisher interface {
	Conversation(ctx context.Context, r *conversation.Record) (tasktopic.Ack, error)
	// ResultsEnd returns where the log of a task's results ends now.
	ResultsEnd(ctx context.Context, id task.ID) (int64, error)
	BrokerNow() time.Time
}

// Claims brings back what does not lie in its record: *claimcheck.Desk.
type Claims interface {
	Collect(ctx context.Context, p task.Payload) (_ task.Payload, release func(), err error)
	Terminal(ctx context.Context, t *terminal.Terminal) (_ *terminal.Terminal, release func(), err error)
}

// Params are the parts a Recaller works with and its limits; zero values are
// the defaults.
type Params struct {
	Sessions  Sessions
	Results   Results
	Publisher Publisher
	Claims    Claims
	Log       *slog.Logger
	Metrics   prometheus.Registerer

	MaxTokens int           // budget of a session that sets none; default 4096
	Wait      time.Duration // the longest one call waits for what it lacks; default 2 s
	Handed    time.Duration // see handedOn; default 10 s
}

func (p Params) withDefaults() Params {
	if p.MaxTokens == 0 {
		p.MaxTokens = DefaultMaxTokens
	}
	if p.Wait == 0 {
		p.Wait = 2 * time.Second
	}
	if p.Handed == 0 {
		p.Handed = 10 * time.Second
	}
	return p
}

// DefaultMaxTokens is the budget of a session where nobody sets one.
const DefaultMaxTokens = 4096

// Recaller gives tasks the messages before theirs. It is safe for concurrent
// use.
type Recaller struct {
	p Params
	m *metrics
}

// New returns a recaller.
func New(p Params) *Recaller {
	return &Recaller{p: p.withDefaults(), m: newMetrics(p.Metrics)}
}

// Recall returns the messages that a task with memory is run with: those of the
// turns before it and its own. Lane is the topic that its record came from; own
// is what it brought, in full. It waits a short while for what must be there.
// Errors are of class system, since nothing is known to be wrong with the task,
// but for a record that no ingress of ours wrote: that is Malformed.
func (r *Recaller) Recall(ctx context.Context, t *task.Task, own json.RawMessage, lane string) (json.RawMessage, error) {
	mine, err := split(own)
	if err != nil || t.SessionID == "" {
		return nil, fault.New(fault.Malformed, "a task with memory needs a session_id and messages")
	}
	began := time.Now()
	messages, err := r.recall(ctx, t, mine, lane)
	r.m.recalled(err, time.Since(began))
	if err != nil {
		return nil, away(err)
	}
	return messages, nil
}

func (r *Recaller) recall(ctx context.Context, t *task.Task, own []json.RawMessage, lane string) (json.RawMessage, error) {
	settings, earlier, err := r.before(ctx, t, lane)
	if err != nil {
		return nil, err
	}
	return r.compose(ctx, settings, earlier, own)
}

// before finds the turns before the task's that were answered.
func (r *Recaller) before(ctx context.Context, t *task.Task, lane string) (conversation.Settings, []convstore.Turn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.p.Wait)
	defer cancel()
	s, at, err := r.register(ctx, t, lane)
	if err != nil {
		return conversation.Settings{}, nil, err
	}
	earlier, err := r.ended(ctx, s.Turns[:at], moment{lane, s.Turns[at].At, map[task.ID]int64{}})
	if s.Settings == nil {
		return conversation.Settings{}, earlier, err
	}
	return *s.Settings, earlier, err
}

// compose writes the messages: what the session says of itself, what fits of
// the turns, the task's own, which always do.
func (r *Recaller) compose(ctx context.Context, s conversation.Settings, earlier []convstore.Turn, own []json.RawMessage) (json.RawMessage, error) {
	var out []json.RawMessage
	if s.Instructions != "" {
		said, err := conversation.Instruct(s.Instructions)
		if err != nil {
			return nil, err
		}
		out = append(out, said)
	}
	budget := r.p.MaxTokens
	if s.MaxTokens > 0 {
		budget = s.MaxTokens
	}
	turns, err := fit(budget-conversation.Guess(sizeOf(out))-conversation.Guess(sizeOf(own)), r.newest(ctx, earlier))
	if err != nil {
		return nil, err
	}
	for _, t := range turns {
		out = append(append(out, t.asked...), t.answer)
	}
	r.m.turns.Observe(float64(len(turns)))
	return join(append(out, own...)), nil
}

// errLate is what a wait ends with.
var errLate = errors.New("not there in time")

// away is the fault of a task whose memory cannot be had now.
func away(err error) error {
	return &fault.Error{
		Code: fault.Unavailable, Class: fault.ClassSystem,
		Message: "the memory of the task's session cannot be read yet", Err: err,
	}
}
