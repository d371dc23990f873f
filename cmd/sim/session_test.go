package sim_test

import (
	"encoding/json"

	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// said is a message.
type said struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// memory is what a session remembers.
type memory struct {
	talk   []said
	unsure bool // a turn was redriven: it came when it came, and those behind it may know it or not
}

// checkSessions holds each answer of a session to what the session had to
// remember by then: the engine answers to all that it is given. Turns may be of
// tasks that no caller knows, since a produce whose outcome is unknown may have
// been one.
func (l *logs) checkSessions(callers []*caller) {
	sessions := map[string]*memory{}
	for _, turn := range l.turns() {
		m := sessions[turn.SessionID]
		if m == nil {
			m = new(memory)
			sessions[turn.SessionID] = m
		}
		l.checkTurn(m, turn)
	}
	for _, c := range callers {
		if m := sessions[c.o.session]; c.o.session != "" && c.id != "" && m == nil && c.ran() {
			l.w.fault("session", "task %s (%s) ran, and its session %s has no turn", c.id, c.o.prompt, c.o.session)
		}
	}
}

func (l *logs) checkTurn(m *memory, turn *conversation.Record) {
	winners := winnersOf(l.outcomes[turn.TaskID])
	if len(winners) == 0 || winners[len(winners)-1].Status != task.Succeeded {
		return
	}
	var brought []said
	l.w.must(json.Unmarshal(turn.Content, &brought))
	m.talk = append(m.talk, brought...)
	m.unsure = m.unsure || len(winners) > 1
	prompt, err := json.Marshal(m.talk)
	l.w.must(err)
	got := winners[len(winners)-1].Output.Text
	if want := simulated.Text(string(prompt), tokens); got != want && !m.unsure {
		l.w.fault("session", "task %s, which said %q in %s, was not given the %d messages before it: %q, want %q",
			turn.TaskID, brought, turn.SessionID, len(m.talk)-len(brought), got, want)
	}
	m.talk = append(m.talk, said{"assistant", got})
}

// ran reports whether a task was seen to succeed.
func (c *caller) ran() bool {
	for _, t := range c.seen {
		if t.Status == task.Succeeded {
			return true
		}
	}
	return false
}

// turns are the records of turns that count, in their order: the first of each
// task.
func (l *logs) turns() []*conversation.Record {
	var out []*conversation.Record
	seen := map[task.ID]bool{}
	for _, r := range l.w.read(topic.Conversations) {
		rec, err := wire.DecodeConversation(tasktopic.FromKgo(r))
		l.w.must(err)
		if rec.Step == conversation.Turned && !seen[rec.TaskID] {
			seen[rec.TaskID] = true
			out = append(out, rec)
		}
	}
	return out
}
