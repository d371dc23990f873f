package sim_test

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/cmd/system/topiclog"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// verdict holds all that was seen against what lies in Kafka.
func (w *world) verdict(callers []*caller) {
	log := w.readLog()
	accepted, succeeded := 0, 0
	for _, c := range callers {
		if c.id == "" {
			continue
		}
		accepted++
		if !log.published[c.id] {
			w.fault("I6", "task %s (%s) was answered 202 and is on no topic", c.id, c.o.prompt)
		}
		winners := winnersOf(log.outcomes[c.id])
		if len(winners) == 0 || !log.outcomes[c.id].State.Status.Terminal() {
			w.fault("I1", "task %s (%s) has not ended: %+v", c.id, c.o.prompt, log.outcomes[c.id])
			continue
		}
		c.checkPolls(winners)
		c.checkStream(winners)
		c.checkAnswer(winners)
		c.checkStatus(winners)
		if winners[len(winners)-1].Status == task.Succeeded {
			succeeded++
		}
	}
	if accepted*10 < len(callers)*9 || succeeded*2 < accepted { // of a run that did nothing nothing can be said
		w.fault("world", "%d of %d tasks were accepted, and %d succeeded", accepted, len(callers), succeeded)
	}
	log.checkCommits()
	log.checkLetters()
	log.checkSessions(callers)
	log.checkHooks(callers)
}

// winnersOf is the visible terminal of each generation.
func winnersOf(o *topiclog.Outcome) []terminal.Terminal {
	var out []terminal.Terminal
	if o == nil {
		return nil
	}
	for _, t := range o.Wins {
		if t.Status != terminal.Reopened {
			out = append(out, t)
		}
	}
	return out
}

// checkPolls asks every instance, and compares all answers ever got.
func (c *caller) checkPolls(winners []terminal.Terminal) {
	for generation, got := range c.seen {
		if int(generation) >= len(winners) {
			c.w.fault("I2", "task %s (%s): a poll saw generation %d of %d", c.id, c.o.prompt, generation, len(winners))
			continue
		}
		want := api.OfTerminal(&winners[generation], generation)
		want.Model, want.Class, want.Labels, want.CreatedAt = "", "", nil, nil
		if diff := cmp.Diff(text(want), text(got)); diff != "" {
			c.w.fault("I2", "task %s (%s), generation %d: log and poll differ: %s", c.id, c.o.prompt, generation, diff)
		}
	}
	if last := uint8(len(winners) - 1); c.seen[last].TaskID == "" {
		c.w.fault("I2", "task %s (%s): no poll saw its end", c.id, c.o.prompt)
	}
}

// lastPolls asks each instance until it knows the end.
func (c *caller) lastPolls(ctx context.Context) {
	for _, i := range c.w.results {
		cl := c.w.clientOf(i)
		for range 60 {
			got, err := cl.Task(ctx, c.id, 0)
			if err != nil {
				c.allow("last poll", err)
			}
			if c.saw(got); err == nil && got.Status.Terminal() {
				break
			}
			time.Sleep(time.Second)
		}
	}
}

// checkAnswer holds an answer against the prompt: neighbours of a batch must
// not be mixed up.
func (c *caller) checkAnswer(winners []terminal.Terminal) {
	end := winners[len(winners)-1]
	if end.Status != task.Succeeded {
		return
	}
	want, got := simulated.Text(c.o.prompt, tokens), end.Output.Text
	switch {
	case c.o.session != "": // see checkSessions
		want = got
	case c.o.embed:
		want, got = text([]any{simulated.Vector(c.o.prompt)}), compact(end.Output.Embeddings)
	}
	if want != got {
		c.w.fault("answer", "task %s (%s): %q, want %q", c.id, c.o.prompt, got, want)
	}
	if strings.HasPrefix(c.o.prompt, rejected) {
		c.w.fault("answer", "task %s (%s) succeeded", c.id, c.o.prompt)
	}
}

// checkStatus holds the last end against what was ordered: once all is healed
// and redriven, nobody's task has died of its neighbours, or of the weather.
func (c *caller) checkStatus(winners []terminal.Terminal) {
	end := winners[len(winners)-1]
	may := false
	switch end.Status {
	case task.Succeeded:
		may = true
	case task.Cancelled:
		may = c.o.cancel > 0
	case task.Expired:
		may = c.o.timeout != ""
	case task.Failed:
		may = strings.HasPrefix(c.o.prompt, rejected)
	}
	if !may {
		c.w.fault("status", "task %s (%s) ended as %s: %s", c.id, c.o.prompt, end.Status, text(end.Error))
	}
}

func compact(raw json.RawMessage) string {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return err.Error()
	}
	return text(v)
}

// checkStream reads what the event stream told, in order.
func (c *caller) checkStream(winners []terminal.Terminal) {
	if !c.o.watch {
		return
	}
	if !c.ended {
		c.w.fault("I2", "task %s (%s): its stream did not end", c.id, c.o.prompt)
		return
	}
	var at event.ID // of the last event
	for i, e := range c.events {
		if i > 0 && e.ID.Fence <= at.Fence && (e.ID.Fence != at.Fence || e.ID.Seq <= at.Seq) {
			c.w.fault("I4", "task %s (%s): event %s follows %s", c.id, c.o.prompt, e.ID, at)
		}
		if e.ID.Fence == at.Fence && e.ID.Seq != at.Seq+1 && e.Type != event.Gap && e.Type != event.Snapshot {
			c.w.fault("I4", "task %s (%s): event %s (%s) follows %s: some are missing", c.id, c.o.prompt, e.ID, e.Type, at)
		}
		if e.Type.Terminal() {
			c.checkEnd(e, winners, i == len(c.events)-1)
			c.checkText(i)
		}
		at = e.ID
	}
}

// checkEnd holds a stream's last event against the log.
func (c *caller) checkEnd(e event.Event, winners []terminal.Terminal, last bool) {
	generation := e.ID.Fence.Generation()
	if !last || int(generation) >= len(winners) {
		c.w.fault("I2", "task %s (%s): its stream tells of the end of generation %d, of %d; last event: %t", c.id, c.o.prompt, generation, len(winners), last)
		return
	}
	if diff := cmp.Diff(text(winners[generation]), text(e.Result)); diff != "" {
		c.w.fault("I2", "task %s (%s), generation %d: log and stream differ: %s", c.id, c.o.prompt, generation, diff)
	}
}

// checkText compares the tokens under the winner's fence with its text.
func (c *caller) checkText(end int) {
	result := c.events[end].Result
	if result == nil || result.Status != task.Succeeded {
		return
	}
	said, tokens, whole := "", 0, true
	for _, e := range c.events[:end] {
		if e.ID.Fence.String() != result.Fence {
			continue
		}
		switch e.Type {
		case event.Delta:
			said += e.Text
			tokens++
		case event.Snapshot:
			said = e.Text
			tokens++
		case event.Gap:
			whole = false
		}
	}
	// Tokens may be lost with Redis; those that came are the text's beginning.
	if tokens > 0 && whole && !strings.HasPrefix(result.Output.Text, said) {
		c.w.fault("I4", "task %s (%s): its tokens %q are not its text %q", c.id, c.o.prompt, said, result.Output.Text)
	}
}

// place is where a record lies.
type place struct {
	topic     string
	partition int32
}

// origin is a record's place and offset, as dead letters name it.
type origin struct {
	place
	offset int64
}

// incarnation is a task between two redrives.
type incarnation struct {
	id     task.ID
	number uint8
}

// entry is one record that workers or movers have to settle.
type entry struct {
	offset     int64
	id         task.ID // empty: cannot be read
	generation uint8
	hop        uint16
}

// evidence is something in the log that settles entries: a terminal, or the
// next hop of a task.
type evidence struct {
	at         time.Time
	generation uint8
	any        bool   // of whatever generation
	terminal   bool   // else a hop
	hop        uint16 // of the hop
}

// logs is all that lies in Kafka at the end.
type logs struct {
	w         *world
	published map[task.ID]bool
	outcomes  map[task.ID]*topiclog.Outcome
	entries   map[place][]entry
	evidence  map[task.ID][]evidence
	buried    map[origin]time.Time
	letters   map[incarnation]time.Time // of the first
	deaths    map[incarnation]time.Time // told by dead terminals, of the first
	names     map[[16]byte]string
}

func (w *world) readLog() *logs {
	l := &logs{
		w: w, published: map[task.ID]bool{}, entries: map[place][]entry{}, evidence: map[task.ID][]evidence{},
		buried: map[origin]time.Time{}, letters: map[incarnation]time.Time{}, deaths: map[incarnation]time.Time{}, names: map[[16]byte]string{},
	}
	details, err := kadm.NewClient(w.cl).ListTopics(w.t.Context())
	w.must(err)
	for name, d := range details {
		l.names[d.ID] = name
		if _, _, ok := topic.ParseTasks(name); ok || topic.IsRetry(name) {
			l.readTasks(w.read(name))
		}
	}
	results := w.read(topic.Results)
	l.outcomes, err = topiclog.Fold(results)
	w.must(err)
	for _, r := range results {
		t, err := wire.DecodeTerminal(tasktopic.FromKgo(r))
		w.must(err)
		e := evidence{at: r.Timestamp, terminal: true, any: t.Generation == nil}
		if t.Generation != nil {
			e.generation = *t.Generation
		}
		l.evidence[t.TaskID] = append(l.evidence[t.TaskID], e)
		if t.Status == task.Dead {
			earliest(l.deaths, incarnation{t.TaskID, e.generation}, r.Timestamp)
		}
	}
	for _, r := range w.read(topic.DeadLetters) {
		letter, err := wire.DecodeDeadLetter(tasktopic.FromKgo(r))
		w.must(err)
		earliest(l.buried, origin{place{letter.Origin.Topic, letter.Origin.Partition}, letter.Origin.Offset}, r.Timestamp)
		earliest(l.letters, incarnation{letter.TaskID, letter.Generation}, r.Timestamp)
	}
	return l
}

// earliest keeps the first of some moments.
func earliest[K comparable](all map[K]time.Time, key K, at time.Time) {
	if before, ok := all[key]; !ok || at.Before(before) {
		all[key] = at
	}
}

func (w *world) read(name string) []*kgo.Record {
	records, err := topiclog.ReadAllOf(w.t.Context(), w.kafka, name)
	w.must(err)
	return records
}

func (l *logs) readTasks(records []*kgo.Record) {
	for _, r := range records {
		at := place{r.Topic, r.Partition}
		t, p, err := wire.DecodeTask(tasktopic.FromKgo(r))
		if err != nil {
			l.entries[at] = append(l.entries[at], entry{offset: r.Offset})
			continue
		}
		l.published[t.ID] = true
		l.entries[at] = append(l.entries[at], entry{r.Offset, t.ID, p.Generation, p.Hop})
		l.evidence[t.ID] = append(l.evidence[t.ID], evidence{at: r.Timestamp, generation: p.Generation, hop: p.Hop})
	}
}

// clock is how findings tell the time.
const clock = "15:04:05.000"

// settledBy returns whether an entry's outcome was in the log at a time.
func (l *logs) settledBy(at place, e entry, when time.Time) bool {
	if died, ok := l.buried[origin{at, e.offset}]; ok && !died.After(when) {
		return true
	}
	for _, v := range l.evidence[e.id] {
		if v.at.After(when) {
			continue
		}
		if v.any || v.generation > e.generation || v.generation == e.generation && (v.terminal || v.hop > e.hop) {
			return true
		}
	}
	return false
}

// checkCommits holds every commit against the log of its time.
func (l *logs) checkCommits() {
	l.w.commits.mu.Lock()
	defer l.w.commits.mu.Unlock()
	for _, c := range l.w.commits.all {
		covers, err := c.covers()
		at := place{l.names[c.topic], c.partition}
		if err != nil || at.topic == "" {
			l.w.fault("I5", "a commit of %+v at %d cannot be read: %v", at, c.offset, err)
			continue
		}
		for _, e := range l.entries[at] {
			if covers(e.offset) && !l.settledBy(at, e, c.at) {
				l.w.fault("I5", "a commit at %s of %s/%d (watermark %d) covers offset %d, task %s, generation %d, hop %d, whose outcome was not in the log but for: %+v",
					c.at.Format(clock), at.topic, at.partition, c.offset, e.offset, e.id, e.generation, e.hop, l.evidence[e.id])
			}
		}
	}
}

// checkLetters: the letter comes before the death, and what is no task has one.
func (l *logs) checkLetters() {
	for g, at := range l.deaths {
		if written, ok := l.letters[g]; !ok || written.After(at) {
			l.w.fault("letter", "task %s died in generation %d at %s, its letter is of %s", g.id, g.number, at.Format(clock), written.Format(clock))
		}
	}
	for at, entries := range l.entries {
		for _, e := range entries {
			if _, ok := l.buried[origin{at, e.offset}]; e.id == "" && !ok {
				l.w.fault("I1", "%s/%d@%d is no task, and not among the dead letters", at.topic, at.partition, e.offset)
			}
		}
	}
}
