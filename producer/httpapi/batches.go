package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/schema/api"
)

// postBulk makes a batch of a file. A retry of an SDK, which says that it is one,
// finds the batch that the call before has made.
func (a *API) postBulk(c echo.Context) error {
	tenant := httpserver.Principal(c).Tenant
	in, err := a.read(c, tenant)
	if err != nil {
		return answer(err)
	}
	defer in.pass.Leave()
	var o api.BulkOrder
	if err := a.order.Decode(in.body, &o); err != nil {
		return answer(err)
	}
	life, err := lifeOf("output_expires_after", o.OutputExpiresAfter)
	if err != nil {
		return answer(err)
	}
	b, err := a.d.Bulk.Create(c.Request().Context(), tenant, bulk.Order{
		Input: o.InputFileID, Endpoint: o.Endpoint, Window: o.CompletionWindow, Metadata: o.Metadata, OutputLife: life, Webhook: o.Webhook,
		Key: in.key, Repeat: retries(c.Request().Header),
	})
	if err != nil {
		return a.bulkError(c, err)
	}
	return c.JSON(http.StatusOK, batchOf(b))
}

func (a *API) getBatch(c echo.Context) error {
	b, err := a.d.Bulk.FindBatch(c.Request().Context(), httpserver.Principal(c).Tenant, c.Param("id"))
	if err != nil {
		return a.bulkError(c, err)
	}
	return c.JSON(http.StatusOK, batchOf(b))
}

// getBatchWebhook shows what became of a batch's webhook. It is empty until the
// batch has ended, and without a webhook for ever.
func (a *API) getBatchWebhook(c echo.Context) error {
	b, err := a.d.Bulk.FindBatch(c.Request().Context(), httpserver.Principal(c).Tenant, c.Param("id"))
	if err != nil {
		return a.bulkError(c, err)
	}
	log, complete, err := a.d.Hooks.BatchWebhook(c.Request().Context(), b.ID)
	switch {
	case err != nil:
		return lookup.Unavailable(err)
	case !complete && b.Spec.Webhook != nil && b.Status.Ended():
		return lookup.Unavailable(errHooksLost)
	}
	return httpserver.OK(c, http.StatusOK, log)
}

// errHooksLost is the cause of an answer that has to wait until Redis has the
// logs of webhooks again.
var errHooksLost = errors.New("logs of webhooks are being restored")

func (a *API) cancelBatch(c echo.Context) error {
	b, err := a.d.Bulk.Cancel(c.Request().Context(), httpserver.Principal(c).Tenant, c.Param("id"))
	if err != nil {
		return a.bulkError(c, err)
	}
	return c.JSON(http.StatusOK, batchOf(b))
}

func (a *API) getBatches(c echo.Context) error {
	p, err := pageOf(c, maxBatchPage, defaultBatchPage)
	if err != nil {
		return answer(err)
	}
	batches, more, err := a.d.Bulk.Batches(c.Request().Context(), httpserver.Principal(c).Tenant, p)
	if err != nil {
		return a.bulkError(c, err)
	}
	out := api.BulkList{Object: "list", Data: make([]api.Bulk, len(batches)), HasMore: more}
	for i, b := range batches {
		out.Data[i] = batchOf(b)
	}
	if n := len(batches); n > 0 {
		out.FirstID, out.LastID = &batches[0].ID, &batches[n-1].ID
	}
	return c.JSON(http.StatusOK, out)
}

// batchOf is a batch as OpenAI clients read it.
func batchOf(b bulk.Batch) api.Bulk {
	out := api.Bulk{
		ID: b.ID, Object: "batch", Endpoint: b.Spec.Endpoint, Errors: faultsOf(b.Faults), InputFileID: b.Spec.Input,
		CompletionWindow: b.Spec.Window, Status: string(b.Status), OutputFileID: textOf(b.Output), ErrorFileID: textOf(b.Errors),
		CreatedAt: b.CreatedAt.Unix(), InProgressAt: timeOf(b.InProgressAt), ExpiresAt: timeOf(b.Spec.ExpiresAt),
		FinalizingAt: timeOf(b.FinalizingAt), CancellingAt: timeOf(b.CancellingAt),
		RequestCounts: api.BulkCounts{Total: b.Total, Completed: b.Counts.Completed, Failed: b.Counts.Ended() - b.Counts.Completed},
		Metadata:      b.Spec.Metadata,
	}
	ended := timeOf(b.EndedAt)
	switch b.Status {
	case bulk.Completed:
		out.CompletedAt = ended
	case bulk.Failed:
		out.FailedAt = ended
	case bulk.Expired:
		out.ExpiredAt = ended
	case bulk.Cancelled:
		out.CancelledAt = ended
	}
	return out
}

func faultsOf(faults []bulk.Fault) *api.BulkErrors {
	if len(faults) == 0 {
		return nil
	}
	out := &api.BulkErrors{Object: "list", Data: make([]api.BulkError, len(faults))}
	for i, f := range faults {
		out.Data[i] = api.BulkError{Code: f.Code, Message: f.Message, Param: textOf(f.Param)}
		if f.Line > 0 {
			out.Data[i].Line = &f.Line
			out.Data[i].Message = "line " + strconv.Itoa(f.Line) + ": " + f.Message
		}
	}
	return out
}

// textOf is null for an empty text, timeOf for no time.
func textOf(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func timeOf(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	seconds := t.Unix()
	return &seconds
}
