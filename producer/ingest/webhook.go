package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// checkWebhook looks at what a caller asks to be told, and where.
func (in *Intake) checkWebhook(w *task.Webhook) error {
	if w == nil {
		return nil
	}
	return CheckWebhook(in.p.Webhooks, w, webhook.Types(w.Form))
}

// CheckWebhook returns why a webhook is not taken whose events may be of the
// types given. Errors are *validate.Error.
func CheckWebhook(p callback.Policy, w *task.Webhook, types []string) error {
	if err := p.Check(w.URL); err != nil {
		return invalid("webhook.url", err.Error())
	}
	for i, kind := range w.Events {
		if !slices.Contains(types, kind) || slices.Contains(w.Events[:i], kind) {
			return invalid("webhook.events", "takes "+strings.Join(types, ", ")+", each once")
		}
	}
	return nil
}

// register begins to note, before a task is written, who wants to hear how it
// ends: so it is known before the task can end. The note of a task that is then
// not written goes with its age.
func (in *Intake) register(d *draft) {
	if d.task.Webhook == nil {
		return
	}
	registered := make(chan error, 1) // one answer, whether or not anybody still waits
	d.registered = registered
	in.d.Publisher.WebhookAsync(&webhook.Record{
		SchemaVersion: task.SchemaVersion, Step: webhook.Registered, TaskID: d.task.ID, Tenant: d.task.Tenant,
		At: d.task.Timestamp, Webhook: d.task.Webhook,
	}, func(_ tasktopic.Ack, err error) { registered <- err })
}

// awaitRegistration returns once the note of register is durable. On error the
// task must not be written: it could end untold.
func (d *draft) awaitRegistration(ctx context.Context) error {
	if d.registered == nil {
		return nil
	}
	var err error
	select {
	case err = <-d.registered:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil {
		return nil
	}
	return &fault.Error{
		Code: fault.Unavailable, RetryAfter: retryFull,
		Message: "the webhook could not be registered, so nothing was accepted; send again after the time in Retry-After",
		Err:     errUnregistered(err),
	}
}

// errUnregistered says why, and is not the error itself: that the fate of the
// note is unknown says nothing of the task, which was certainly not written.
func errUnregistered(err error) error {
	return errors.New(fmt.Sprint("register webhook: ", err))
}
