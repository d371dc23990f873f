package history

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/penstock/penstock/schema/task"
)

// call is the input of one operation.
type call struct {
	id   task.ID
	kind Kind
}

// Recorder notes calls that told of an end. It is safe for concurrent use.
type Recorder struct {
	began time.Time

	mu  sync.Mutex
	ops []porcupine.Operation
}

// NewRecorder returns a recorder whose clock begins now.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Do makes a call on behalf of a client and notes what it saw. A call whose
// outcome is unknown may take effect at any later time.
func (r *Recorder) Do(client int, id task.ID, kind Kind, make func() Seen) Seen {
	began := time.Since(r.began)
	saw := make()
	ended := time.Since(r.began)
	r.note(client, call{id, kind}, began, ended, saw)
	return saw
}

// note keeps what can contradict something. A call that told of no end cannot,
// and would only make the search longer, exponentially so.
func (r *Recorder) note(client int, c call, began, ended time.Duration, saw Seen) {
	if !saw.Status.Terminal() && !saw.Reopened && !(c.kind == Redrive && saw.Unknown) {
		return
	}
	op := porcupine.Operation{ClientId: client, Input: c, Call: int64(began), Output: saw, Return: int64(ended)}
	if saw.Unknown {
		op.Return = math.MaxInt64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
}

// Ends says how many calls of each kind told an end, or reopened one.
func (r *Recorder) Ends() map[Kind]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[Kind]int{}
	for _, op := range r.ops {
		if saw := op.Output.(Seen); saw.Status.Terminal() || saw.Reopened {
			out[op.Input.(call).kind]++
		}
	}
	return out
}

// checkLimit bounds the search for one task's order; a history that it does not
// finish proves nothing.
const checkLimit = 20 * time.Second

// Check returns an error if no register could have shown what the clients saw
// of some task. The error lists that task's calls; the history is drawn into
// a file at path.
func (r *Recorder) Check(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := model()
	for _, ops := range partition(r.ops) {
		result, info := porcupine.CheckOperationsVerbose(m, ops, checkLimit)
		if result == porcupine.Ok {
			continue
		}
		err := fmt.Errorf("the history of task %s is %s, as %s shows:%s", ops[0].Input.(call).id, result, path, listing(ops))
		return errors.Join(err, porcupine.VisualizePath(m, info, path))
	}
	return nil
}

// listing is the calls of one task, in the order they began, a line each; calls
// that saw the same as the one before are left out.
func listing(ops []porcupine.Operation) string {
	ops = slices.SortedFunc(slices.Values(ops), func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var out strings.Builder
	for i, op := range ops {
		if i > 0 && op.Output == ops[i-1].Output && op.Input == ops[i-1].Input {
			continue
		}
		fmt.Fprintf(&out, "\n%12s %12s %-8s %+v", time.Duration(op.Call), time.Duration(op.Return), op.Input.(call).kind, op.Output)
	}
	return out.String()
}
