// Package wire turns the contract's types into Kafka records and back:
// CloudEvents 1.0, Kafka protocol binding, binary mode. The value is plain
// JSON that any consumer can read, the attributes are `ce_*` headers.
// Structured mode is read too.
//
// Records are described with the standard library alone, so that strangers can
// use the package with any Kafka client.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Record is one Kafka record, less its place in the log.
type Record struct {
	Key     []byte
	Value   []byte
	Headers []Header
}

// Header is one record header.
type Header struct {
	Key   string
	Value []byte
}

// CloudEvents types of our records.
const (
	TypeTask     = "io.penstock.task.v1"
	TypeTerminal = "io.penstock.terminal.v1"
	TypeControl  = "io.penstock.control.v1"
	TypeWebhook  = "io.penstock.webhook.v1"

	TypeConversation = "io.penstock.conversation.v1"
)

// Header names. Extension attributes of CloudEvents are lower-case letters and
// digits, after the binding's `ce_` prefix.
const (
	HeaderSpec        = "ce_specversion"
	HeaderID          = "ce_id"
	HeaderType        = "ce_type"
	HeaderSource      = "ce_source"
	HeaderSubject     = "ce_subject"
	HeaderTime        = "ce_time"
	HeaderContentType = "content-type"
	HeaderTraceparent = "traceparent"

	HeaderTenant       = "ce_tenant"
	HeaderGeneration   = "ce_generation"
	HeaderHop          = "ce_hop"
	HeaderAttempts     = "ce_attempts"
	HeaderLosses       = "ce_losses"
	HeaderHistory      = "ce_history"
	HeaderFirstFailure = "ce_firstfailure"
	HeaderReturnTopic  = "ce_returntopic"
	HeaderNotBefore    = "ce_notbefore"
	HeaderRedriveJob   = "ce_redrivejob"
	HeaderDeadline     = "ce_deadline"
	HeaderClaimCheck   = "ce_claimcheck"
	HeaderStatus       = "ce_status"
)

// ErrRecord is returned for a record that cannot be read as what it should be.
var ErrRecord = errors.New("undecodable record")

// Get returns the first header of a name.
func (r Record) Get(name string) (string, bool) {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value), true
		}
	}
	return "", false
}

type headerList []Header

func (l *headerList) add(key, value string) {
	if value != "" {
		*l = append(*l, Header{key, []byte(value)})
	}
}

// attributes writes the CloudEvents attributes of a record whose value is the
// data itself.
func (l *headerList) attributes(id, typ, source, subject string, at time.Time) {
	l.context(id, typ, source, subject, at)
	l.add(HeaderContentType, "application/json")
}

func (l *headerList) context(id, typ, source, subject string, at time.Time) {
	l.add(HeaderSpec, "1.0")
	l.add(HeaderID, id)
	l.add(HeaderType, typ)
	l.add(HeaderSource, source)
	l.add(HeaderSubject, subject)
	l.add(HeaderTime, stamp(at))
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// marshal writes JSON without the escapes meant for HTML: they would make six
// bytes of each '<' in a prompt, and so a record of a body within its limit too
// large for its topic.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// EncodeTask writes a task's first record.
func EncodeTask(t *task.Task, p task.Progress, traceparent string) (Record, error) {
	value, err := marshal(t)
	if err != nil {
		return Record{}, fmt.Errorf("encode task: %w", err)
	}
	return Republish(Record{Key: []byte(t.PartitionKey()), Value: value}, t, p, traceparent)
}

// Republish gives the record of a task new progress. Key and value stay the
// same bytes, so whoever put them there can still recognise them; a value in
// structured mode stays marked as such. Headers that are not ours, such as a
// stranger's CloudEvents extensions, follow ours as they came.
func Republish(r Record, t *task.Task, p task.Progress, traceparent string) (Record, error) {
	h := make(headerList, 0, 16)
	h.context(string(t.ID), TypeTask, "/penstock/"+string(t.Source), t.Model, t.Timestamp)
	h.add(HeaderContentType, contentType(r))
	h.add(HeaderTenant, t.Tenant)
	h.add(HeaderTraceparent, traceparent)
	if err := h.progress(p); err != nil {
		return Record{}, err
	}
	if t.Payload.Ref != nil {
		h.add(HeaderClaimCheck, t.Payload.Ref.Key)
	}
	for _, theirs := range r.Headers {
		if !ours(theirs.Key) {
			h = append(h, theirs)
		}
	}
	return Record{Key: r.Key, Value: r.Value, Headers: h}, nil
}

// ours reports whether a task's record bears a header of this name only as we
// write it: what was there before is replaced, or over.
func ours(name string) bool {
	switch name {
	case HeaderSpec, HeaderID, HeaderType, HeaderSource, HeaderSubject, HeaderTime, HeaderContentType, HeaderTraceparent,
		HeaderTenant, HeaderGeneration, HeaderHop, HeaderAttempts, HeaderLosses, HeaderHistory, HeaderFirstFailure,
		HeaderReturnTopic, HeaderNotBefore, HeaderRedriveJob, HeaderDeadline, HeaderClaimCheck, HeaderStatus:
		return true
	}
	return isLineage(name)
}

func (l *headerList) progress(p task.Progress) error {
	l.add(HeaderGeneration, strconv.Itoa(int(p.Generation)))
	l.add(HeaderHop, strconv.Itoa(int(p.Hop)))
	l.add(HeaderAttempts, strconv.Itoa(p.Attempts))
	if p.Losses > 0 {
		l.add(HeaderLosses, strconv.Itoa(p.Losses))
	}
	if len(p.History) > 0 {
		history, err := marshal(p.History)
		if err != nil {
			return fmt.Errorf("encode attempt history: %w", err)
		}
		l.add(HeaderHistory, string(history))
	}
	l.add(HeaderFirstFailure, stamp(p.FirstFailure))
	l.add(HeaderReturnTopic, p.ReturnTopic)
	l.add(HeaderNotBefore, stamp(p.NotBefore))
	l.add(HeaderRedriveJob, p.RedriveJob)
	l.add(HeaderDeadline, stamp(p.Deadline))
	return nil
}

// DecodeTask reads a record of a tasks or retry topic. The error is ErrRecord,
// with the reason, for bytes that are not a task of a version we know.
// Unknown fields are ignored, so that an older reader survives a newer writer.
// A deadline in the progress takes the place of the value's, and so does the
// key of a payload that lies in the blob store.
func DecodeTask(r Record) (*task.Task, task.Progress, error) {
	value, err := dataOf(r)
	if err != nil {
		return nil, task.Progress{}, err
	}
	var t task.Task
	if err := json.Unmarshal(value, &t); err != nil {
		return nil, task.Progress{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if err := checkTask(&t); err != nil {
		return nil, task.Progress{}, err
	}
	p, err := decodeProgress(r)
	if !p.Deadline.IsZero() {
		t.Deadline = p.Deadline
	}
	if key, ok := r.Get(HeaderClaimCheck); ok && t.Payload.Ref != nil {
		t.Payload.Ref.Key = key
	}
	return &t, p, err
}

// hasPayload reports whether there is anything to run. A JSON null is nothing.
func hasPayload(p task.Payload) bool {
	messages := len(p.Messages) > 0 && string(p.Messages) != "null"
	return p.Text != "" || messages || len(p.Inputs) > 0 || p.Ref != nil
}

func checkTask(t *task.Task) error {
	switch {
	case t.SchemaVersion != task.SchemaVersion:
		return fmt.Errorf("%w: schema version %d, want %d", ErrRecord, t.SchemaVersion, task.SchemaVersion)
	case t.Tenant == "" || t.Model == "" || t.Kind == "" || t.Class == "":
		return fmt.Errorf("%w: tenant, model, kind and class are required", ErrRecord)
	case t.Timestamp.IsZero() || t.Deadline.IsZero():
		return fmt.Errorf("%w: timestamp and deadline are required", ErrRecord)
	case !hasPayload(t.Payload):
		return fmt.Errorf("%w: payload has none of text, messages, inputs and ref", ErrRecord)
	}
	if _, err := task.ParseID(string(t.ID)); err != nil {
		return fmt.Errorf("%w: message_id: %w", ErrRecord, err)
	}
	return nil
}

func decodeProgress(r Record) (task.Progress, error) {
	var p task.Progress
	d := headerReader{r: r}
	p.Generation = uint8(d.number(HeaderGeneration, 1<<8-1))
	p.Hop = uint16(d.number(HeaderHop, event.MaxHop))
	p.Attempts = int(d.number(HeaderAttempts, 1<<20))
	p.Losses = int(d.number(HeaderLosses, 1<<20))
	p.FirstFailure = d.time(HeaderFirstFailure)
	p.NotBefore = d.time(HeaderNotBefore)
	p.Deadline = d.time(HeaderDeadline)
	p.ReturnTopic, _ = r.Get(HeaderReturnTopic)
	p.RedriveJob, _ = r.Get(HeaderRedriveJob)
	if raw, ok := r.Get(HeaderHistory); ok && d.err == nil {
		if err := json.Unmarshal([]byte(raw), &p.History); err != nil {
			d.err = fmt.Errorf("%w: header %s: %w", ErrRecord, HeaderHistory, err)
		}
	}
	return p, d.err
}

// headerReader reads typed headers and keeps the first error.
type headerReader struct {
	r   Record
	err error
}

func (d *headerReader) number(name string, most int64) int64 {
	raw, ok := d.r.Get(name)
	if !ok || d.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(raw, 10, 64)
	if err != nil || n < 0 || n > most {
		d.err = fmt.Errorf("%w: header %s: %q is not a number from 0 to %d", ErrRecord, name, raw, most)
	}
	return n
}

func (d *headerReader) time(name string) time.Time {
	raw, ok := d.r.Get(name)
	if !ok || d.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, raw)
	if year := t.UTC().Year(); err == nil && (year < 0 || year > 9999) {
		err = fmt.Errorf("year %d in UTC cannot be written again", year)
	}
	if err != nil {
		d.err = fmt.Errorf("%w: header %s: %w", ErrRecord, name, err)
	}
	return t
}

// structured reports whether a record's value is a whole CloudEvent. Media
// types have no case.
func structured(r Record) bool {
	const prefix = "application/cloudevents"
	got, _ := r.Get(HeaderContentType)
	return len(got) >= len(prefix) && strings.EqualFold(got[:len(prefix)], prefix)
}

// contentType is that of a record's value as it stands.
func contentType(r Record) string {
	if !structured(r) {
		return "application/json"
	}
	got, _ := r.Get(HeaderContentType)
	return got
}

// dataOf returns the JSON value: the record's own in binary mode, the `data`
// member in structured mode.
func dataOf(r Record) ([]byte, error) {
	if !structured(r) {
		return r.Value, nil
	}
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(r.Value, &envelope); err != nil {
		return nil, fmt.Errorf("%w: structured CloudEvent: %w", ErrRecord, err)
	}
	return envelope.Data, nil
}

// EncodeTerminal writes a record of `penstock.results`.
func EncodeTerminal(t *terminal.Terminal, traceparent string) (Record, error) {
	value, err := marshal(t)
	if err != nil {
		return Record{}, fmt.Errorf("encode terminal: %w", err)
	}
	h := make(headerList, 0, 12)
	id := string(t.TaskID) + "/" + string(t.Status)
	if t.Generation != nil {
		id += "/" + strconv.Itoa(int(*t.Generation))
		h.add(HeaderGeneration, strconv.Itoa(int(*t.Generation)))
	}
	h.attributes(id, TypeTerminal, "/penstock", string(t.TaskID), t.EndedAt)
	h.add(HeaderTenant, t.Tenant)
	h.add(HeaderStatus, string(t.Status))
	h.add(HeaderTraceparent, traceparent)
	return Record{Key: []byte(t.TaskID), Value: value, Headers: h}, nil
}

// DecodeTerminal reads a record of `penstock.results`.
func DecodeTerminal(r Record) (*terminal.Terminal, error) {
	value, err := dataOf(r)
	if err != nil {
		return nil, err
	}
	var t terminal.Terminal
	if err := json.Unmarshal(value, &t); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if t.SchemaVersion != task.SchemaVersion {
		return nil, fmt.Errorf("%w: schema version %d, want %d", ErrRecord, t.SchemaVersion, task.SchemaVersion)
	}
	if !t.Status.Terminal() && t.Status != terminal.Reopened {
		return nil, fmt.Errorf("%w: status %q ends nothing", ErrRecord, t.Status)
	}
	if string(r.Key) != string(t.TaskID) {
		return nil, fmt.Errorf("%w: key and task_id differ", ErrRecord)
	}
	return &t, nil
}

// OutlineTerminal reads of a record of `penstock.results`, from its headers
// alone, what decides which terminal counts; false if they do not have it.
func OutlineTerminal(r Record) (*terminal.Terminal, bool) {
	status, ok := r.Get(HeaderStatus)
	if !ok || len(r.Key) != task.IDLength {
		return nil, false
	}
	t := &terminal.Terminal{TaskID: task.ID(r.Key), Status: task.Status(status)}
	if g, ok := r.Get(HeaderGeneration); ok {
		n, err := strconv.ParseUint(g, 10, 8)
		if err != nil {
			return nil, false
		}
		generation := uint8(n)
		t.Generation = &generation
	}
	return t, true
}

// Control writes a record of `penstock.control`: JSON that an operator's job
// or decision is kept in, keyed by its id.
func Control(key string, value []byte, at time.Time) Record {
	h := make(headerList, 0, 8)
	h.attributes(key, TypeControl, "/penstock", key, at)
	return Record{Key: []byte(key), Value: value, Headers: h}
}
