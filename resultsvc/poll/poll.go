// Package poll serves what is known of tasks: one, at once or when it has
// ended, and lists.
package poll

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/resultsvc/lookup"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Store is the projection: *taskstore.Store.
type Store interface {
	Get(ctx context.Context, id task.ID) (taskstore.Found, error)
	List(ctx context.Context, tenant string, f taskstore.Filter) (api.TaskList, error)
	Params() taskstore.Params
}

// Waiter waits for the end of a task: *follow.Follower.
type Waiter interface {
	Wait(ctx context.Context, id task.ID) (*terminal.Terminal, uint8, error)
}

// Results brings large outputs back: *claimcheck.Desk. The error is of trouble
// that may pass.
type Results interface {
	Task(ctx context.Context, view api.Task) (_ api.Task, release func(), err error)
}

// API serves the routes.
type API struct {
	store   Store
	waiter  Waiter
	results Results
	ids     lookup.IDs

	draining context.Context // done once long polls must answer
	drain    context.CancelFunc
}

// New returns the routes over a projection.
func New(store Store, waiter Waiter, results Results, ids lookup.IDs) *API {
	a := &API{store: store, waiter: waiter, results: results, ids: ids}
	a.draining, a.drain = context.WithCancel(context.Background())
	return a
}

// Register mounts the routes behind a middleware that authenticates.
func (a *API) Register(e *echo.Echo, authenticate echo.MiddlewareFunc) {
	e.GET("/v1/tasks", a.list, authenticate)
	e.GET("/v1/tasks/:id", a.one, authenticate)
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
	view, err := a.view(c.Request().Context(), id, wait)
	if err != nil {
		return err
	}
	view, release, err := a.results.Task(c.Request().Context(), view)
	if err != nil {
		return lookup.Unavailable(err)
	}
	defer release()
	return httpserver.OK(c, http.StatusOK, view)
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

func (a *API) view(ctx context.Context, id task.ID, wait time.Duration) (api.Task, error) {
	found, err := a.store.Get(ctx, id)
	if wait > 0 && found.Terminal == nil && !found.Expired && !a.store.Params().Gone(id, time.Now()) {
		view, ended, waitErr := a.await(ctx, id, wait)
		if ended || waitErr != nil {
			return view, waitErr
		}
		found, err = a.store.Get(ctx, id)
	}
	if err != nil {
		return api.Task{}, lookup.Unavailable(err)
	}
	if found.Expired {
		return api.Task{}, lookup.Expired()
	}
	if !found.Known {
		if err := lookup.Silence(a.store.Params(), id, found.CaughtUp, time.Now()); err != nil {
			return api.Task{}, err
		}
	}
	return found.View, nil
}

// await waits for the end. It reports false when the time is up or the server
// drains: the caller then answers with what is known.
func (a *API) await(ctx context.Context, id task.ID, wait time.Duration) (api.Task, bool, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(a.draining, cancel)()
	t, generation, err := a.waiter.Wait(waiting, id)
	switch {
	case err == nil:
		return api.OfTerminal(t, generation), true, nil
	case ctx.Err() != nil:
		return api.Task{}, false, fmt.Errorf("wait for task: %w", context.Cause(ctx))
	case waiting.Err() != nil:
		return api.Task{}, false, nil
	default:
		return api.Task{}, false, err
	}
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
