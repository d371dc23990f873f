package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// registerResponses adds the routes of the Responses API.
func (a *API) registerResponses(e *echo.Echo, form echo.MiddlewareFunc) {
	submit, read := httpserver.Authenticate(a.d.Auth, auth.ScopeSubmit), httpserver.Authenticate(a.d.Auth, auth.ScopeRead)
	e.POST("/v1/responses", a.postResponse, form, submit, a.tellRate)
	e.GET("/v1/responses/:id", a.getResponse, form, read)
	e.DELETE("/v1/responses/:id", a.deleteResponse, form, submit)
	e.POST("/v1/responses/:id/cancel", a.postResponseCancel, form, submit)
	e.GET("/v1/responses/:id/input_items", a.getInputItems, form, read)
}

// postResponse accepts a response and answers with it: at once if it runs in the
// background, as it grows if it is streamed, else when it has ended.
func (a *API) postResponse(c echo.Context) error {
	k, err := a.takeCall(c, func(k *call, body []byte) (ingest.Submission, error) { return a.readResponse(c, k, body) })
	if err != nil {
		return refusal(err, openai.ResponseParamOf)
	}
	defer k.leave()
	a.acceptedResponse(c.Request().Context(), k)
	k.introduce(c)
	switch {
	case k.stream:
		v := openai.ResponseView{After: -1}
		if k.repeats {
			v.Since = a.newest(c.Request().Context(), k.id)
		}
		return a.streamAnswer(c, k, responseTeller{openai.NewResponseScript(*k.response, v)})
	case k.response.Background():
		return a.backgroundAnswer(c, k)
	}
	return a.wholeAnswer(c, k)
}

// readResponse decodes a body, with the messages of the response that it follows.
func (a *API) readResponse(c echo.Context, k *call, body []byte) (ingest.Submission, error) {
	r, err := a.parser.ParseResponse(body)
	if err != nil {
		return ingest.Submission{}, err
	}
	if previous := r.Kept.Echo.Previous; previous != nil && *previous != "" {
		earlier, err := a.d.Responses.Earlier(c.Request().Context(), k.tenant, *previous)
		if err != nil {
			return ingest.Submission{}, err
		}
		r.Continue(earlier)
	}
	k.Call, k.response = r.Call, &openai.Response{Request: r.Kept}
	k.resumes = r.Kept.Echo.Background
	if !r.Kept.Echo.Store {
		return ingest.Submission{}, nil
	}
	tenant := k.tenant
	return ingest.Submission{Before: func(ctx context.Context, t *task.Task) error {
		k.response.Request.At = k.createdAt(t.ID)
		return a.d.Responses.Keep(ctx, tenant, t.ID, k.response.Request)
	}}, nil
}

// createdAt is when a response was made, in Unix seconds: its id says it, unless
// that was made of a key.
func (k *call) createdAt(id task.ID) int64 {
	if id.Keyed() {
		return k.at.Unix()
	}
	return id.Time().Unix()
}

// acceptedResponse completes the response of a task that is accepted. One that
// repeats a key is as old as it was stored.
func (a *API) acceptedResponse(ctx context.Context, k *call) {
	k.response.Task, k.response.Request.At = k.id, k.createdAt(k.id)
	if !k.repeats || !k.id.Keyed() || !k.response.Request.Echo.Store {
		return
	}
	if found, err := a.d.Responses.Find(ctx, k.tenant, openai.ResponseID(k.id)); err == nil {
		k.response.Request.At = found.Request.At
	}
}

// backgroundAnswer says that a response is queued.
func (a *API) backgroundAnswer(c echo.Context, k *call) error {
	k.took(c)
	if err := c.Blob(http.StatusOK, echo.MIMEApplicationJSON, k.response.Accepted()); err != nil {
		a.left(c.Request().Context(), k)
		return err
	}
	a.settled(c.Request().Context(), k, outcomeAnswered)
	return nil
}

// getResponse answers with a response as it stands, or with its events.
func (a *API) getResponse(c echo.Context) error {
	ctx := c.Request().Context()
	r, err := a.d.Responses.Find(ctx, httpserver.Principal(c).Tenant, c.Param("id"))
	if err != nil {
		return err
	}
	view, release, err := a.d.Responses.View(ctx, r)
	if err != nil {
		return err
	}
	c.Response().Header().Set(headerTaskID, string(r.Task))
	if c.QueryParam("stream") != "true" {
		defer release()
		return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, r.Body(view))
	}
	v := openai.ResponseView{Ended: view.Status.Terminal(), Lost: r.Restored}
	produced, generation := view.Fence, view.Generation
	release()
	if v.After, err = openai.StartingAfter(c.QueryParam("starting_after")); err != nil {
		return answer(err)
	}
	v.Since = openai.LiveSince(a.newest(ctx, r.Task), produced, generation)
	return a.watchResponse(c, r, v)
}

// newest is the fence of the newest attempt that is known; zero if none is.
func (a *API) newest(ctx context.Context, id task.ID) event.Fence {
	fence, err := a.d.NewestFunc(ctx, id)
	if err != nil {
		a.d.Log.Debug("newest attempt is not known, void output may be told", "task_id", string(id), "err", err)
	}
	return fence
}

// watchResponse tells the events of a response that another call has made.
func (a *API) watchResponse(c echo.Context, r openai.Response, v openai.ResponseView) error {
	tenant := httpserver.Principal(c).Tenant
	leave, err := a.d.Seats.Take(tenant, "streams", "wait for answers before asking for more")
	if err != nil {
		return err
	}
	defer leave()
	k := &call{
		tenant: tenant, id: r.Task, at: time.Now(), stream: true, patience: patienceOf(c.Request().Header),
		response: &r, resumes: true, watches: true,
	}
	return a.streamAnswer(c, k, responseTeller{openai.NewResponseScript(r, v)})
}

// postResponseCancel stops a response and answers with it as it ended.
func (a *API) postResponseCancel(c echo.Context) error {
	ctx := c.Request().Context()
	r, view, err := a.d.Responses.Cancel(ctx, httpserver.Principal(c).Tenant, c.Param("id"))
	if err != nil {
		return err
	}
	view, release, err := a.d.Results.Task(ctx, view)
	if err != nil {
		return claimcheck.Fault(err)
	}
	defer release()
	c.Response().Header().Set(headerTaskID, string(r.Task))
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, r.Body(view))
}

// deleteResponse forgets a response.
func (a *API) deleteResponse(c echo.Context) error {
	id, err := a.d.Responses.Delete(c.Request().Context(), httpserver.Principal(c).Tenant, c.Param("id"))
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, openai.Deleted(id))
}

// getInputItems lists what a response was asked with.
func (a *API) getInputItems(c echo.Context) error {
	page, err := openai.ParseItemPage(c.QueryParam("after"), c.QueryParam("limit"), c.QueryParam("order"))
	if err != nil {
		return answer(err)
	}
	r, err := a.d.Responses.Find(c.Request().Context(), httpserver.Principal(c).Tenant, c.Param("id"))
	if err != nil {
		return err
	}
	body, err := r.InputItems(page)
	if err != nil {
		return answer(err)
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, body)
}
