package ledger

import (
	"fmt"
	"slices"
	"strings"

	"github.com/penstock/penstock/schema/task"
)

// Verdict is what a run came to: counts, and everything that must not be.
type Verdict struct {
	Submitted, Accepted, Refused, Unknown int
	Ended                                 map[task.Status]int // accepted tasks, by what Kafka says of them
	Polls                                 PollCounts
	Streams                               StreamCounts
	Commits                               CommitCounts
	Dead                                  int // tasks with dead letters, after identity collapse
	Losers                                int // terminals that came second: work that was done twice
	WrongFate                             []Finding
	Findings                              []Finding
	Notes                                 []string
}

// OK reports whether every invariant held.
func (v Verdict) OK() bool { return len(v.Findings) == 0 }

// examples of a broken invariant that are told.
const examples = 3

// Broken tells each broken invariant in one line: how often, and examples.
func (v Verdict) Broken() []string { return lines(v.Findings) }

func lines(findings []Finding) []string {
	by := map[string][]Finding{}
	var names []string
	for _, f := range findings {
		if by[f.Invariant] == nil {
			names = append(names, f.Invariant)
		}
		by[f.Invariant] = append(by[f.Invariant], f)
	}
	slices.Sort(names)
	out := make([]string, len(names))
	for i, name := range names {
		list := by[name]
		parts := make([]string, min(examples, len(list)))
		for k := range parts {
			parts[k] = strings.TrimSpace(string(list[k].Task) + " " + list[k].What)
		}
		out[i] = fmt.Sprintf("%s: %d, such as: %s", name, len(list), strings.Join(parts, "; "))
	}
	return out
}

// String tells all of it, in some lines.
func (v Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "submits: %d, accepted %d, refused %d, unknown %d\n", v.Submitted, v.Accepted, v.Refused, v.Unknown)
	fmt.Fprintf(&b, "ends: %s; %d terminals came second; %d dead letters\n", statuses(v.Ended), v.Losers, v.Dead)
	fmt.Fprintf(&b, "polls: %d answered, %d not, %d told less than before\n", v.Polls.Polls, v.Polls.Unavailable, v.Polls.Forgotten)
	fmt.Fprintf(&b, "streams: %d, ended %d, %d events, %d restarts, %d gaps, %d snapshots, texts %v\n", v.Streams.Streams,
		v.Streams.Ended, v.Streams.Events, v.Streams.Restarts, v.Streams.Gaps, v.Streams.Snapshots, v.Streams.Texts)
	fmt.Fprintf(&b, "commits: %d samples, %d failed, %d offsets covered, %d unreadable\n", v.Commits.Samples, v.Commits.Failed,
		v.Commits.Covered, v.Commits.Unread)
	for _, n := range v.Notes {
		b.WriteString(n + "\n")
	}
	for _, line := range lines(v.WrongFate) {
		b.WriteString("not as expected: " + line + "\n")
	}
	for _, line := range v.Broken() {
		b.WriteString("BROKEN " + line + "\n")
	}
	if v.OK() {
		b.WriteString("every invariant held\n")
	}
	return b.String()
}

func statuses(ended map[task.Status]int) string {
	var parts []string
	for _, s := range task.Statuses() {
		if n := ended[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", s, n))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}
