package ledger

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/system/topiclog"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Check holds a book against the log, after the drain. Commits may be nil.
func Check(b *Book, l *Log, c *Commits) Verdict {
	v := Verdict{Ended: map[task.Status]int{}, Streams: b.streamCounts()}
	seen := b.sights(&v)
	k := checker{v: &v, log: l, prompts: l.prompts(), dead: l.Census()}
	for _, e := range b.Entries() {
		k.entry(e, seen[e.ID])
	}
	k.streams(b)
	if c != nil {
		v.Commits = c.check(l, func(id task.ID, what string) { k.find("I5", id, "%s", what) })
	}
	if n := len(l.Unread); n > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("%d records could not be read, such as %s", n, l.Unread[0]))
	}
	return v
}

// sights copies what was seen, by whom.
func (b *Book) sights(v *Verdict) map[task.ID]map[uint8]sight {
	b.mu.Lock()
	defer b.mu.Unlock()
	v.Findings, v.Polls = slices.Clone(b.broken), b.polls
	out := make(map[task.ID]map[uint8]sight, len(b.seen))
	for id, ends := range b.seen {
		out[id] = maps.Clone(ends)
	}
	return out
}

type checker struct {
	v       *Verdict
	log     *Log
	prompts map[asked][]task.ID
	dead    map[task.ID]int
}

// asked is what identifies a submit on Kafka: nobody else asks this.
type asked struct{ tenant, prompt string }

// prompts lists the tasks that ask each prompt.
func (l *Log) prompts() map[asked][]task.ID {
	out := map[asked][]task.ID{}
	for id, hops := range l.Tasks {
		key := asked{hops[0].Tenant, hops[0].Prompt}
		out[key] = append(out[key], id)
	}
	return out
}

func (k *checker) find(invariant string, id task.ID, format string, args ...any) {
	k.v.Findings = append(k.v.Findings, Finding{invariant, id, fmt.Sprintf(format, args...)})
}

func (k *checker) entry(e Entry, seen map[uint8]sight) {
	k.v.Submitted++
	there := k.prompts[asked{e.Tenant, promptOf(e.Request.Payload)}]
	if len(there) > 1 {
		k.find("I2", there[0], "key %s made %d tasks", e.Key, len(there))
	}
	switch e.Answer {
	case Refused:
		k.v.Refused++
		if len(there) > 0 {
			k.find("I6", there[0], "was refused (%s) and exists", e.Last)
		}
	case Unknown:
		k.v.Unknown++
	default:
		k.v.Accepted++
		k.accepted(e, seen)
	}
}

func (k *checker) accepted(e Entry, seen map[uint8]sight) {
	if len(k.log.Tasks[e.ID]) == 0 {
		k.find("I6", e.ID, "got a 202 and has no record on any task topic")
	}
	won := k.log.Ends[e.ID].Ended()
	if won == nil {
		k.find("I1", e.ID, "was accepted and has no terminal")
		return
	}
	k.v.Ended[won.Status]++
	k.v.Losers += k.log.Ends[e.ID].Losers
	if k.dead[e.ID] > 0 {
		k.v.Dead++
	}
	k.shown(e, k.log.Ends[e.ID], seen)
	if len(seen) == 0 {
		k.find("I1", e.ID, "has a terminal that nobody could read")
	}
	k.fate(e, won)
}

// shown holds what people were shown against what Kafka says.
func (k *checker) shown(e Entry, o *topiclog.Outcome, seen map[uint8]sight) {
	truth := map[uint8]end{}
	away := map[uint8]bool{} // the output lies in the blob store: the log has only its name
	generation := uint8(0)
	for i := range o.Wins {
		if t := &o.Wins[i]; t.Status == terminal.Reopened {
			generation = *t.Generation
		} else {
			truth[generation] = endOf(api.OfTerminal(t, generation))
			away[generation] = t.OutputRef != nil
		}
	}
	for g, s := range seen {
		if same := truth[g] == s.end || away[g] && truth[g].Status == s.Status; !same {
			k.find("I3", e.ID, "%s was shown %s in generation %d, the log says %q", s.By, s.Status, g, truth[g].Status)
		}
	}
}

// fate tells whether the task ended as it should, with its own answer.
func (k *checker) fate(e Entry, t *terminal.Terminal) {
	switch {
	case t.Status != e.Fate:
		what := fmt.Sprintf("%s instead of %s", t.Status, e.Fate)
		if t.Error != nil {
			what += ": " + string(t.Error.Code) + ", " + t.Error.Message
		}
		k.v.WrongFate = append(k.v.WrongFate, Finding{"fate", e.ID, what})
	case t.Status == task.Succeeded && e.Want != "" && t.OutputRef == nil && (t.Output == nil || t.Output.Text != e.Want):
		k.find("I4", e.ID, "has another answer than its own")
	}
}

// streams tells which accepted streams never showed a terminal.
func (k *checker) streams(b *Book) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, s := range b.streams {
		if s.ended == 0 {
			k.find("I1", id, "its stream showed no terminal; the last event was %s", s.last)
		}
	}
}

// Foreign asks for a sample of the accepted tasks with another tenant's key,
// poll and stream, and notes every answer but 404.
func Foreign(ctx context.Context, d Doors, b *Book, sample int) error {
	if len(d.Keys) < 2 {
		return fmt.Errorf("read as a stranger: the run has %d tenants", len(d.Keys))
	}
	clients, err := d.clients(d.Results)
	if err != nil {
		return err
	}
	defer closeAll(clients)
	list := b.Accepted()
	step := max(1, len(list)/max(1, sample))
	for i := 0; i < len(list); i += step {
		e, _ := b.entry(list[i])
		cl := clients[d.stranger(e.Tenant)][i%len(d.Results)]
		if err := b.asStranger(ctx, cl, e); err != nil {
			return err
		}
	}
	return nil
}

func (d Doors) stranger(tenant string) string {
	for name := range d.Keys {
		if name != tenant {
			return name
		}
	}
	return tenant
}

func (b *Book) asStranger(ctx context.Context, cl *client.Client, e Entry) error {
	call, cancel := context.WithTimeout(ctx, pollLimit)
	defer cancel()
	_, err := cl.Task(call, e.ID, 0)
	streamErr := cl.Probe(call, cl.API(), "/v1/tasks/"+string(e.ID)+"/events")
	if ctx.Err() != nil {
		return fmt.Errorf("read as a stranger: %w", context.Cause(ctx))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for what, got := range map[string]int{"poll": client.StatusOf(err), "stream": client.StatusOf(streamErr)} {
		if got != http.StatusNotFound {
			b.find("I7", e.ID, fmt.Sprintf("another tenant's %s is answered %d", what, got))
		}
	}
	return nil
}
