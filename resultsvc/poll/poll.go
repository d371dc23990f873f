// Package poll serves what is known of tasks: one, at once or when it has
// ended, and lists.
package poll

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// Store is the projection: *taskstore.Store.
type Store interface {
	lookup.Store
	List(ctx context.Context, tenant string, f taskstore.Filter) (api.TaskList, error)
	Webhook(ctx context.Context, id task.ID) (l webhook.Log, complete bool, err error)
}

// API serves the routes.
type API struct {
	store Store
	tasks *lookup.Reader
	ids   lookup.IDs

	draining context.Context // done once long polls must answer
	drain    context.CancelFunc
}

// New returns the routes over a projection.
func New(store Store, waiter lookup.Waiter, results lookup.Results, ids lookup.IDs) *API {
	a := &API{store: store, tasks: lookup.NewReader(store, waiter, results), ids: ids}
	a.draining, a.drain = context.WithCancel(context.Background())
	return a
}

// Register mounts the routes behind middlewares that authenticate.
func (a *API) Register(e *echo.Echo, byKey, orByTicket echo.MiddlewareFunc) {
	e.GET("/v1/tasks", a.list, byKey)
	e.GET("/v1/tasks/:id", a.one, orByTicket)
	e.GET("/v1/tasks/:id/webhook", a.webhook, byKey)
}

// Drain makes long polls answer with what is known now.
func (a *API) Drain() { a.drain() }

// one answers GET /v1/tasks/{id}, with ?wait=N after at most N seconds.
func (a *API) one(c echo.Context) error {
	id, err := lookup.CheckID(a.ids, c.Param("id"), httpserver.Principal(c).Tenant)
	if err != nil {
		return err
	}
	wait, err := waitOf(c.QueryParam("wait"))
	if err != nil {
		return err
	}
	view, release, err := a.tasks.Task(c.Request().Context(), id, wait, a.draining)
	if err != nil {
		return err
	}
	defer release()
	return httpserver.OK(c, http.StatusOK, view)
}

// webhook answers GET /v1/tasks/{id}/webhook: what became of the task's webhook.
func (a *API) webhook(c echo.Context) error {
	id, err := lookup.CheckID(a.ids, c.Param("id"), httpserver.Principal(c).Tenant)
	if err != nil {
		return err
	}
	log, complete, err := a.store.Webhook(c.Request().Context(), id)
	if err != nil {
		return lookup.Unavailable(err)
	}
	if len(log.Deliveries) == 0 {
		if err := lookup.Silence(a.store.Params(), id, complete, time.Now()); err != nil {
			return err
		}
	}
	return httpserver.OK(c, http.StatusOK, log)
}

// waitOf reads whole seconds; more than the limit is the limit.
func waitOf(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, badQuery("wait", "wait must be a whole number of seconds, 0 to %d", int(api.MaxWait.Seconds()))
	}
	return min(time.Duration(n)*time.Second, api.MaxWait), nil
}

func badQuery(param, format string, args ...any) error {
	e := httpserver.Fail(fault.Malformed, format, args...)
	e.Param = param
	return e
}

// list answers GET /v1/tasks.
func (a *API) list(c echo.Context) error {
	f, err := filterOf(c)
	if err != nil {
		return err
	}
	page, err := a.store.List(c.Request().Context(), httpserver.Principal(c).Tenant, f)
	switch {
	case errors.Is(err, taskstore.ErrCursor):
		return badQuery("after", "after must be the cursor of the page before")
	case err != nil:
		return lookup.Unavailable(err)
	}
	return httpserver.OK(c, http.StatusOK, page)
}

func filterOf(c echo.Context) (taskstore.Filter, error) {
	f := taskstore.Filter{
		Status: task.Status(c.QueryParam("status")), Model: c.QueryParam("model"),
		Label: c.QueryParam("label"), After: c.QueryParam("after"),
	}
	if f.Status != "" && !slices.Contains(task.Statuses(), f.Status) {
		return f, badQuery("status", "status must be one of %v", task.Statuses())
	}
	if text := c.QueryParam("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > api.MaxList {
			return f, badQuery("limit", "limit must be a whole number from 1 to %d", api.MaxList)
		}
		f.Limit = n
	}
	return f, nil
}
