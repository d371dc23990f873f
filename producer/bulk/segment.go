package bulk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/schema/task"
)

// outcome is what became of one line: an answer, or why there is none.
type outcome struct {
	place    int
	customID string
	id       task.ID // empty: never submitted
	answer   *Answer
	fault    lineFault
	count    Counts // one, of its kind
}

// lineFault says why a line has no answer.
type lineFault struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// resultLine is one line of an output or error file.
type resultLine struct {
	ID       string          `json:"id"`
	CustomID string          `json:"custom_id"`
	Response *resultResponse `json:"response"`
	Error    *lineFault      `json:"error"`
}

type resultResponse struct {
	StatusCode int             `json:"status_code"`
	RequestID  string          `json:"request_id"` // of the task
	Body       json.RawMessage `json:"body"`
}

// buffer collects outcomes until they are stored.
type buffer struct {
	output, errors bytes.Buffer
	lines          lineSet
	counts         Counts
	began          time.Time // when the first of them came
}

func (b *buffer) empty() bool { return b.counts.Ended() == 0 }

func (b *buffer) due(age time.Duration) bool { return !b.empty() && time.Since(b.began) >= age }

func (b *buffer) size() int { return b.output.Len() + b.errors.Len() }

// largeBuffer is what is not kept for the next segment.
const largeBuffer = 4 << 20

func (b *buffer) reset() {
	b.lines, b.counts = nil, Counts{}
	for _, each := range []*bytes.Buffer{&b.output, &b.errors} {
		if each.Reset(); each.Cap() > largeBuffer {
			*each = bytes.Buffer{}
		}
	}
}

// record adds an outcome, and stores what is collected when that is enough.
func (u *runner) record(o outcome) error {
	b := &u.buffer
	if b.empty() {
		b.began = time.Now()
	}
	to := &b.errors
	if o.count.Completed > 0 {
		to = &b.output
	}
	if err := writeLine(to, u.t.id, o); err != nil {
		return err
	}
	b.lines.add(o.place)
	b.counts = b.counts.plus(o.count)
	if b.size() >= u.d.p.SegmentBytes || b.counts.Ended() >= u.d.p.SegmentLines {
		return u.flush()
	}
	return nil
}

func writeLine(to io.Writer, batch string, o outcome) error {
	l := resultLine{ID: fmt.Sprintf("batch_req_%s_%d", batch[len(batchPrefix):], o.place), CustomID: o.customID}
	if o.answer != nil {
		l.Response = &resultResponse{StatusCode: o.answer.Status, RequestID: string(o.id), Body: o.answer.Body}
	} else {
		l.Error = &o.fault
	}
	enc := json.NewEncoder(to)
	enc.SetEscapeHTML(false) // as in answers: model output is full of <, > and &
	if err := enc.Encode(l); err != nil {
		return fmt.Errorf("encode result of line %d: %w", o.place, err)
	}
	return nil
}

// flush stores what is collected and says so. From then on it counts, and no
// process runs these lines again.
func (u *runner) flush() error {
	b := &u.buffer
	if b.empty() {
		return nil
	}
	s := &segment{N: u.t.segments, Lines: b.lines.spans(), Counts: b.counts}
	var err error
	if s.Output, err = u.store(b.output.Bytes()); err != nil {
		return err
	}
	if s.Errors, err = u.store(b.errors.Bytes()); err != nil {
		return err
	}
	if err := u.tell(entry{Type: entrySegment, Segment: s}); err != nil {
		return err
	}
	if _, on := u.d.ledger.standing(u.t, u.d.p.Owner); !on {
		return errReplaced // and so it did not count
	}
	u.collected(s)
	b.reset()
	return nil
}

// collected notes a segment that counts.
func (u *runner) collected(s *segment) {
	u.t.segments++
	u.t.counts = u.t.counts.plus(s.Counts)
	u.t.done.addAll(s.Lines)
	if s.Output != nil {
		u.t.outputs = append(u.t.outputs, *s.Output)
	}
	if s.Errors != nil {
		u.t.errors = append(u.t.errors, *s.Errors)
	}
	u.d.metrics.collected(s)
}

// store keeps one content of a segment; nil for none.
func (u *runner) store(content []byte) (*task.Ref, error) {
	if len(content) == 0 {
		return nil, nil
	}
	var ref task.Ref
	err := u.persist("store segment", func(ctx context.Context) (err error) {
		ref, err = u.d.p.Blobs.Put(ctx, bytes.NewReader(content), int64(len(content)))
		return err
	})
	return &ref, err
}

// finalize joins the segments to files and ends the batch.
func (u *runner) finalize() error {
	if err := u.tell(entry{Type: entryFinalizing}); err != nil {
		return err
	}
	status, on := u.d.ledger.standing(u.t, u.d.p.Owner)
	as := Completed
	switch {
	case !on:
		return errReplaced
	case status == Cancelling:
		as = Cancelled
	case u.t.counts.Expired > 0:
		as = Expired
	}
	return u.end(as, nil)
}

// errLost is returned by join for segments that the store no longer has.
var errLost = errors.New("results are no longer in the blob store")

func (u *runner) end(as Status, faults []Fault) error {
	output, outputErr := u.join("output", u.t.outputs)
	errorFile, errorsErr := u.join("errors", u.t.errors)
	switch err := errors.Join(outputErr, errorsErr); {
	case errors.Is(err, errLost):
		u.log.Error("results of the batch are no longer in the blob store")
		as, faults = Failed, append(faults, Fault{Code: "results_lost", Message: "results are no longer in the blob store; run the file again"})
	case err != nil:
		return err
	}
	if err := u.tell(entry{Type: entryEnded, Status: as, Output: output, Errors: errorFile, Faults: faults}); err != nil {
		return err
	}
	u.d.metrics.ended.WithLabelValues(string(as)).Inc()
	u.log.Info("batch ended", "as", as, "completed", u.t.counts.Completed, "lines", u.t.total)
	return nil
}

// join makes a file of segments; nil for none. It is streamed: no content is
// held as a whole.
func (u *runner) join(what string, segments []task.Ref) (*File, error) {
	if len(segments) == 0 {
		return nil, nil
	}
	now := u.d.p.Publisher.BrokerNow().UTC()
	f := &File{
		ID: joblog.NewID(filePrefix, now), Tenant: u.t.spec.Tenant, Name: u.t.id + "_" + what + ".jsonl", Purpose: PurposeOutput,
		CreatedAt: now, ExpiresAt: now.Add(u.t.spec.OutputLife),
	}
	lost := false
	err := u.persist("join "+what, func(ctx context.Context) (err error) {
		all := &chain{ctx: ctx, blobs: u.d.p.Blobs, rest: segments}
		defer all.Close()
		f.Content, err = u.d.p.Blobs.Keep(ctx, f.ID, now.Add(u.d.p.FileLife), all, sizeOf(segments))
		if lost = gone(err); lost {
			return nil
		}
		return err
	})
	if lost {
		return nil, errLost
	}
	return f, err
}

// gone reports whether the store answers and has not got what was put.
func gone(err error) bool {
	return errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrRef)
}

func sizeOf(refs []task.Ref) (n int64) {
	for _, r := range refs {
		n += r.Bytes
	}
	return n
}

// chain reads blobs one after another, one open at a time.
type chain struct {
	ctx   context.Context
	blobs Blobs
	rest  []task.Ref
	open  io.ReadCloser
}

// Read implements io.Reader.
func (c *chain) Read(p []byte) (int, error) {
	for {
		if c.open == nil {
			if len(c.rest) == 0 {
				return 0, io.EOF
			}
			content, err := c.blobs.Open(c.ctx, c.rest[0])
			if err != nil {
				return 0, err
			}
			c.open, c.rest = content, c.rest[1:]
		}
		n, err := c.open.Read(p)
		if err == io.EOF { //nolint:errorlint // readers return io.EOF itself
			_ = c.open.Close() // it was read to its checked end
			c.open, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Close closes what is open.
func (c *chain) Close() {
	if c.open != nil {
		_ = c.open.Close() // nothing was written to it
		c.open = nil
	}
}
