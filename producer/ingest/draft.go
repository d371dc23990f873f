package ingest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/rules"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// draft is a task that passed every check and is not published yet.
type draft struct {
	task       *task.Task
	pool       string
	key        string
	bodyHash   [sha256.Size]byte
	earlier    task.ID      // the id the key would have had in the bucket before
	enqueued   bool         // this submit counted it behind its ordering key
	cleaned    bool         // its queue was full, and was cleaned
	registered <-chan error // one answer once its webhook is durable; nil: it has none
	before     func(ctx context.Context, t *task.Task) error
}

// draft makes the task of a submission. Errors are what the caller did wrong,
// or what keeps the task out.
func (in *Intake) draft(s Submission) (*draft, error) {
	now := in.d.Publisher.BrokerNow().UTC()
	t, err := in.newTask(s, now)
	if err != nil {
		return nil, err
	}
	d := &draft{task: t, key: s.Key, before: s.Before}
	switch {
	case s.ID != "":
		if in.d.Minter.Check(s.ID, s.Tenant) != nil {
			return nil, fault.New(fault.Internal, "the task's id is not of its tenant")
		}
		t.ID = s.ID
	case s.Key == "":
		t.ID = in.d.Minter.New(s.Tenant, now)
	default:
		d.bodyHash = hashBody(s.Body)
		t.ID = in.d.Minter.Keyed(s.Tenant, s.Key, d.bodyHash, now)
		d.earlier = in.d.Minter.Keyed(s.Tenant, s.Key, d.bodyHash, now.Add(-task.Bucket))
	}
	if d.pool, err = in.assign(s, t); err != nil {
		return nil, err
	}
	return d, in.admit(s.Tenant)
}

// assign gives a task its model and kind, and returns the pool that serves it.
func (in *Intake) assign(s Submission, t *task.Task) (pool string, err error) {
	model, err := in.model(t)
	if err != nil {
		return "", err
	}
	t.Model = model.ID
	if t.Memory {
		if t.Payload, err = spoken(t.Payload); err != nil {
			return "", err
		}
	}
	t.Kind, err = kindOf(s.Kind, t.Payload, model)
	return model.Pool, err
}

func (in *Intake) newTask(s Submission, now time.Time) (*task.Task, error) {
	r := s.Request
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	if err := checkMemory(r); err != nil {
		return nil, err
	}
	if err := in.checkWebhook(r.Webhook); err != nil {
		return nil, err
	}
	t := &task.Task{
		SchemaVersion: task.SchemaVersion,
		Source:        r.Source,
		Tenant:        s.Tenant,
		Model:         r.Model,
		Class:         r.Class,
		SessionID:     r.SessionID,
		OrderingKey:   orderOf(r),
		Memory:        r.Memory,
		Payload:       r.Payload,
		Params:        r.Params,
		Stream:        r.Stream,
		Timestamp:     now,
		Labels:        r.Labels,
		Webhook:       r.Webhook,
	}
	if t.Source == "" {
		t.Source = task.SourceAPI
	}
	if t.Class == "" {
		t.Class = task.Standard
	}
	var err error
	t.Deadline, err = in.deadline(r, t.Class, now)
	return t, err
}

// checkRequest makes the checks that JSON Schema cannot: sizes in bytes, and
// what this server does not do.
func checkRequest(r *api.SubmitRequest) error {
	if r.Payload.Ref != nil {
		return invalid("payload.ref", "is set by the server only")
	}
	for _, f := range [...]struct{ path, value string }{
		{"model", r.Model}, {"session_id", r.SessionID}, {"ordering_key", r.OrderingKey},
	} {
		if len(f.value) > api.MaxName {
			return tooLarge(f.path, "has %d bytes, at most %d are allowed", len(f.value), api.MaxName)
		}
	}
	if len(r.Payload.Inputs) > api.MaxInputs {
		return tooLarge("payload.inputs", "has %d items, at most %d are allowed", len(r.Payload.Inputs), api.MaxInputs)
	}
	return checkLabels(r.Labels)
}

func checkLabels(labels map[string]string) error {
	if len(labels) > api.MaxLabels {
		return tooLarge("labels", "has %d members, at most %d are allowed", len(labels), api.MaxLabels)
	}
	for name, value := range labels {
		if len(name) > api.MaxLabel || len(value) > api.MaxLabel {
			return tooLarge("labels", "a name or value is longer than %d bytes", api.MaxLabel)
		}
	}
	return nil
}

// deadline is the caller's, or the class's own.
func (in *Intake) deadline(r *api.SubmitRequest, c task.Class, now time.Time) (time.Time, error) {
	switch {
	case r.Deadline != nil && r.Timeout != "":
		return time.Time{}, invalid("timeout", "give deadline or timeout, not both")
	case r.Deadline != nil:
		return in.checkDeadline("deadline", r.Deadline.UTC(), now)
	case r.Timeout != "":
		wait, err := time.ParseDuration(r.Timeout)
		if err != nil || wait <= 0 {
			return time.Time{}, invalid("timeout", `expected a duration above zero such as "30s"`)
		}
		return in.checkDeadline("timeout", now.Add(wait), now)
	case c == task.Interactive:
		return now.Add(min(api.InteractiveLimit, in.p.MaxAge)), nil
	}
	return now.Add(min(api.DefaultDeadline, in.p.MaxAge)), nil
}

func (in *Intake) checkDeadline(path string, deadline, now time.Time) (time.Time, error) {
	switch {
	case !deadline.After(now):
		return time.Time{}, invalid(path, "is in the past")
	case deadline.After(now.Add(in.p.MaxAge)):
		return time.Time{}, invalid(path, "is more than "+in.p.MaxAge.String()+" away, which is the longest a task may live")
	}
	return deadline, nil
}

// model returns the model the task names, or the one that the rules find.
func (in *Intake) model(t *task.Task) (catalog.Model, error) {
	id := t.Model
	if id == "" {
		found, ok := in.d.Router.Route(t.ID, rules.Message{
			Tenant: t.Tenant, Source: t.Source, SessionID: t.SessionID, Labels: t.Labels, Payload: &t.Payload,
		})
		if !ok {
			return catalog.Model{}, invalid("model", "is required: no routing rule matches this message")
		}
		id = found
	}
	m, ok := in.d.Catalog.Model(id)
	if !ok {
		return catalog.Model{}, &validate.Error{
			Code: fault.NotFound, Path: "model", Offset: -1,
			Reason: fmt.Sprintf("no such model among the %d known; see GET /v1/models", len(in.d.Catalog.Models)),
		}
	}
	return m, nil
}

// kindOf says what is asked of the model, from the form of the payload unless
// the caller has said so.
func kindOf(asked task.Kind, p task.Payload, m catalog.Model) (task.Kind, error) {
	path, kinds := "payload.text", []task.Kind{task.Completion, task.Embedding}
	switch {
	case asked != "":
		path, kinds = "model", []task.Kind{asked}
	case p.Messages != nil:
		path, kinds = "payload.messages", []task.Kind{task.Chat}
	case p.Inputs != nil:
		path = "payload.inputs"
	}
	for _, k := range kinds {
		if slices.Contains(m.Kinds, k) {
			return k, nil
		}
	}
	return "", invalid(path, fmt.Sprintf("model %s does %s only", m.ID, joinKinds(m.Kinds)))
}

func joinKinds(kinds []task.Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// admit applies the limits that do not depend on the task.
func (in *Intake) admit(tenant string) error {
	if !in.exempt(tenant) {
		if in.d.Backlog.Over() {
			err := fault.New(fault.Unavailable, "unfinished tasks are so old that new ones could be lost; send again after the time in Retry-After")
			err.RetryAfter = retryBacklog
			return err
		}
	}
	return in.d.Admission.Task(tenant)
}

func (in *Intake) exempt(tenant string) bool { return tenant == in.p.Exempt && tenant != "" }

// hashBody hashes a body by what it says: white space, the order of members
// and the spelling of strings do not matter. Numbers count as written, because
// rounding them would make different seeds equal.
func hashBody(body []byte) [sha256.Size]byte {
	canonical := jsontext.Value(slices.Clone(body))
	if err := canonical.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false)); err != nil {
		return sha256.Sum256(body) // not JSON after all: bound to its bytes
	}
	return sha256.Sum256(canonical)
}

func (d *draft) hint() Hint {
	t := d.task
	return Hint{ID: t.ID, Tenant: t.Tenant, Model: t.Model, Class: t.Class, Labels: t.Labels, CreatedAt: t.Timestamp, Deadline: t.Deadline}
}

func invalid(path, reason string) error {
	return &validate.Error{Code: fault.Malformed, Path: path, Offset: -1, Reason: reason}
}

func tooLarge(path, format string, args ...any) error {
	return &validate.Error{Code: fault.TooLarge, Path: path, Offset: -1, Reason: fmt.Sprintf(format, args...)}
}
