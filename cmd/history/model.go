package history

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"github.com/penstock/penstock/schema/task"
)

// Kind says what a call was.
type Kind string

// Kinds of calls. A read is a poll, a long poll, a list or an event stream: all
// of them must show the same. A cancel answers what it sees in the end.
const (
	Read    Kind = "read"
	Cancel  Kind = "cancel"
	Redrive Kind = "redrive"
)

// Seen is what a call told of its task.
type Seen struct {
	Unknown    bool // the call failed, or said nothing: it may have had its effect
	Generation uint8
	Status     task.Status
	Mark       string // of everything else of a terminal: another mark is another terminal
	Reopened   bool   // a redrive put the task back to work
}

// register is one task as one observer in one place would see it: in a
// generation, and with the terminal that won in it.
type register struct {
	generation uint8
	end        task.Status // empty: open
	mark       string
}

func (r register) String() string {
	if r.end == "" {
		return fmt.Sprintf("generation %d, open", r.generation)
	}
	return fmt.Sprintf("generation %d, %s %s", r.generation, r.end, r.mark)
}

// model is the register's specification. A worker ends an open task whenever
// it likes, so the first terminal that anybody sees is taken as it comes; from
// then on it must stay. That a task is open is a hint, which may come late and
// contradicts nothing: a stream may tell an end before Redis has it, and a Redis
// that was lost has to learn it anew.
func model() porcupine.Model {
	nondeterministic := porcupine.NondeterministicModel{
		Partition: partition,
		Init:      func() []any { return []any{register{}} },
		Step: func(state, input, output any) []any {
			var out []any
			for _, next := range step(state.(register), input.(call).kind, output.(Seen)) {
				out = append(out, next)
			}
			return out
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%s → %+v", input.(call).kind, output) },
		DescribeState:     func(state any) string { return fmt.Sprint(state) },
	}
	return nondeterministic.ToModel()
}

// step is every state that a call may leave behind; none if what it saw cannot
// be.
func step(r register, kind Kind, saw Seen) []register {
	switch {
	case kind == Redrive && saw.Unknown:
		return append([]register{r}, reopened(r)...)
	case kind == Redrive && saw.Reopened:
		return reopened(r)
	case kind != Redrive && saw.Status.Terminal():
		return ended(r, saw)
	}
	return []register{r}
}

// reopened is the register after a redrive, which only a death allows. One
// that nobody saw may have come before it.
func reopened(r register) []register {
	if r.end != "" && r.end != task.Dead {
		return nil
	}
	return []register{{generation: r.generation + 1}}
}

func ended(r register, saw Seen) []register {
	end := register{generation: saw.Generation, end: saw.Status, mark: saw.Mark}
	if r.end == "" && r.generation == saw.Generation || r == end {
		return []register{end}
	}
	return nil
}

// partition splits a history by task: tasks know nothing of each other.
func partition(ops []porcupine.Operation) [][]porcupine.Operation {
	at := map[task.ID]int{}
	var out [][]porcupine.Operation
	for _, op := range ops {
		id := op.Input.(call).id
		i, ok := at[id]
		if !ok {
			i = len(out)
			at[id] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], op)
	}
	return out
}
