package httpapi

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// postCancel answers 200 with the task as it ended, or 202 while the winner is
// not known. A winner with a large output that cannot be read now is a 503:
// asking again changes nothing.
func (a *API) postCancel(c echo.Context) error {
	id := task.ID(c.Param("id"))
	out, err := a.d.Cancels.Cancel(c.Request().Context(), httpserver.Principal(c).Tenant, id)
	if err != nil {
		return err
	}
	if out.Ended {
		return a.ended(c, out.Task)
	}
	c.Response().Header().Set(echo.HeaderLocation, api.NewAccepted(id).StatusURL)
	return httpserver.OK(c, http.StatusAccepted, out.Task)
}

func (a *API) ended(c echo.Context, t api.Task) error {
	view, release, err := a.d.Results.Task(c.Request().Context(), t)
	if err != nil {
		return claimcheck.Fault(err)
	}
	defer release()
	return httpserver.OK(c, http.StatusOK, view)
}
