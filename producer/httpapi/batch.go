package httpapi

import (
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// itemSeparator is in no key that a header can carry, so a list's items never
// meet the key of a single task.
const itemSeparator = "\x00"

// postBatch accepts up to api.MaxBatch tasks, each on its own merits. It
// answers 202 when any was accepted, and 200 when none was: the items say why.
// An Idempotency-Key holds for the list: the i-th item's is derived from it.
func (a *API) postBatch(c echo.Context) error {
	tenant := httpserver.Principal(c).Tenant
	in, err := a.read(c, tenant)
	if err != nil {
		a.d.Metrics.Refused(err)
		return answer(err)
	}
	defer in.pass.Leave()
	items, err := validate.Elements(in.body, "tasks", api.MaxBatch)
	if err == nil && len(items) == 0 {
		err = &validate.Error{Code: fault.Malformed, Path: "tasks", Offset: -1, Reason: "must not be empty"}
	}
	if err != nil {
		a.d.Metrics.Refused(err)
		return answer(err)
	}
	results := a.d.Intake.AcceptAll(c.Request().Context(), len(items), func(i int) (ingest.Submission, error) {
		s := ingest.Submission{Tenant: tenant, Request: new(api.SubmitRequest), Body: items[i]}
		if in.key != "" {
			s.Key = in.key + itemSeparator + strconv.Itoa(i)
		}
		return s, a.submit.Decode(items[i], s.Request)
	})
	return respondBatch(c, results)
}

func respondBatch(c echo.Context, results []ingest.Result) error {
	out := api.BatchResponse{Items: make([]api.BatchItem, len(results))}
	for i, r := range results {
		item := &out.Items[i]
		item.Index = i
		if r.Err == nil {
			accepted := api.NewAccepted(r.Receipt.ID)
			item.Code, item.Accepted = http.StatusAccepted, &accepted
			out.Accepted++
			continue
		}
		e := httpserver.AsError(answer(r.Err))
		item.Code, item.Error = e.Status, &api.Error{Type: fault.Code(e.Code), Message: e.Message, Param: e.Param}
		out.Refused++
	}
	status := http.StatusOK
	if out.Accepted > 0 {
		status = http.StatusAccepted
	}
	return httpserver.OK(c, status, out)
}
