package bulk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Dialect turns the body of a line into a task, and how that ended into the
// answer that the line's endpoint would have given.
type Dialect interface {
	// Serves reports whether batches of an endpoint are taken.
	Serves(endpoint string) bool
	// Request reads a body as what the caller wants to be run, and how its end is
	// answered. Errors are *validate.Error.
	Request(endpoint string, body []byte) (ingest.Submission, AnswerFunc, error)
	// Refusal is the answer to a request that is not accepted.
	Refusal(endpoint string, err error) Answer
}

// Answer is what one line's endpoint would have answered.
type Answer struct {
	Status int
	Body   []byte // JSON
}

// AnswerFunc makes the answer of an ended task, output included.
type AnswerFunc func(t api.Task) Answer

// maxFaults is how many faults of one file are told.
const maxFaults = 100

// check reads a whole file and returns how many lines it has, or what is wrong
// with it. The error is of the reader.
func (d *Desk) check(spec *Spec, content io.Reader) (total int, faults []Fault, err error) {
	in, seen := newLines(content, d.p.MaxLine), map[[sha256.Size]byte]struct{}{}
	for len(faults) < maxFaults {
		raw, err := in.next()
		switch {
		case errors.Is(err, io.EOF):
			return in.place + 1, whole(in.place+1, faults), nil
		case errors.Is(err, errLineTooLarge):
			return 0, append(faults, Fault{Line: in.n, Code: "line_too_large", Message: fmt.Sprintf("has more than %d bytes", d.p.MaxLine)}), nil
		case err != nil:
			return 0, nil, err
		case in.place >= MaxLines:
			return 0, append(faults, Fault{Line: in.n, Code: "too_many_lines", Message: fmt.Sprintf("a file may have %d requests; split it", MaxLines)}), nil
		}
		if f := d.checkLine(spec, raw, seen); f != nil {
			f.Line = in.n
			faults = append(faults, *f)
		}
	}
	return 0, faults, nil
}

// whole adds what is wrong with a file as a whole.
func whole(total int, faults []Fault) []Fault {
	if total == 0 {
		return append(faults, Fault{Code: "empty_file", Message: "the file has no requests: it must be JSON Lines, one request each"})
	}
	return faults
}

func (d *Desk) checkLine(spec *Spec, raw []byte, seen map[[sha256.Size]byte]struct{}) *Fault {
	l, f := parseLine(raw, spec.Endpoint)
	if f != nil {
		return f
	}
	id := sha256.Sum256([]byte(l.CustomID))
	if _, twice := seen[id]; twice {
		return &Fault{Code: "duplicate_custom_id", Message: "custom_id is that of a line before", Param: "custom_id"}
	}
	seen[id] = struct{}{}
	s, _, err := d.p.Dialect.Request(spec.Endpoint, l.Body)
	if err == nil {
		s.Tenant, s.Request.Class = spec.Tenant, task.Bulk
		err = d.p.Intake.Check(s)
	}
	if err == nil {
		return nil
	}
	return faultOf(err)
}

// faultOf says what is wrong with the body of a line.
func faultOf(err error) *Fault {
	bad, ok := errors.AsType[*validate.Error](err)
	switch {
	case !ok:
		return &Fault{Code: "invalid_request", Message: "the body is not one that can be run: " + err.Error(), Param: "body"}
	case bad.Code == fault.NotFound && bad.Path == "model":
		return &Fault{Code: "model_not_found", Message: bad.Error(), Param: "body.model"}
	case bad.Path == "":
		return &Fault{Code: "invalid_request", Message: bad.Error(), Param: "body"}
	}
	return &Fault{Code: "invalid_request", Message: bad.Error(), Param: "body." + bad.Path}
}

// place makes a line's submission one of its batch, with a key that follows from
// batch and line alone.
func (d *Desk) place(s ingest.Submission, spec *Spec, batch string, n int) ingest.Submission {
	deadline := spec.ExpiresAt
	if most := d.p.Publisher.BrokerNow().Add(d.p.MaxTaskAge - deadlineSlack); deadline.After(most) {
		deadline = most
	}
	r := s.Request
	r.Class, r.Stream, r.Source, r.Timeout, r.Deadline = task.Bulk, false, task.SourceAPI, "", &deadline
	r.Labels = map[string]string{LabelBatch: batch}
	s.Tenant, s.Key = spec.Tenant, batch+keySeparator+strconv.Itoa(n)
	return s
}

const (
	// LabelBatch is the label by which the tasks of a batch are found.
	LabelBatch = "batch_id"
	// keySeparator is in no key that a header can carry, so a line never meets
	// the key of somebody's own task.
	keySeparator = "\x00line\x00"
	// deadlineSlack is for the way of a line to the door.
	deadlineSlack = time.Minute
)
