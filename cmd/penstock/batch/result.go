package batch

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/client"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Result is one line of the output: a task as it ended, or why the server did
// not take it.
type Result struct {
	CustomID string `json:"custom_id"`
	*api.Task
	Refused *Refusal `json:"refused,omitempty"`
}

// Refusal says why a task was not accepted.
type Refusal struct {
	Status  int        `json:"status"`
	Type    fault.Code `json:"type"`
	Message string     `json:"message"`
	Param   string     `json:"param,omitempty"`
}

func refusal(e *client.Error) *Refusal {
	return &Refusal{Status: e.Status, Type: e.Type, Message: e.Message, Param: e.Param}
}

// ok reports that the task succeeded.
func (r Result) ok() bool { return r.Task != nil && r.Status == task.Succeeded }

// results are written as they come, each in one write. It is safe for
// concurrent use.
type results struct {
	done map[string]bool // custom ids that have a line already; not changed after open

	mu sync.Mutex // guards to
	to io.Writer
	f  *os.File // nil for somebody else's writer
}

// openResults writes to a file, behind the whole lines that it has: those are
// done. A line that was cut off is cut away. With no path it writes to w.
func openResults(path string, w io.Writer) (*results, error) {
	if path == "" {
		return &results{to: w}, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	r := &results{to: f, f: f, done: map[string]bool{}}
	whole, err := r.recall()
	if err == nil {
		err = f.Truncate(whole)
	}
	if err == nil {
		_, err = f.Seek(whole, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("go on in %s: %w", path, err), f.Close())
	}
	return r, nil
}

// recall reads what the file has, and returns the end of its last whole line.
func (r *results) recall() (whole int64, err error) {
	in := bufio.NewReader(r.f)
	for number := 1; ; number++ {
		text, err := readLine(in)
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return 0, err
		}
		var one struct {
			CustomID string `json:"custom_id"`
		}
		if err := json.Unmarshal(text, &one); err != nil || one.CustomID == "" {
			return 0, fmt.Errorf("line %d is no result of a batch: name another file", number)
		}
		r.done[one.CustomID] = true
		whole += int64(len(text))
	}
}

func (r *results) write(one Result) error {
	raw, err := json.Marshal(one)
	if err != nil {
		return fmt.Errorf("encode result %s: %w", one.CustomID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.to.Write(append(raw, '\n')); err != nil {
		return fmt.Errorf("write result %s: %w", one.CustomID, err)
	}
	return nil
}

func (r *results) close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}
