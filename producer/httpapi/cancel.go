package httpapi

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/schema/task"
)

// postCancel answers 200 with the task as it ended, or 202 while the winner is
// not known.
func (a *API) postCancel(c echo.Context) error {
	id := task.ID(c.Param("id"))
	out, err := a.d.Cancels.Cancel(c.Request().Context(), httpserver.Principal(c).Tenant, id)
	if err != nil {
		return err
	}
	if out.Ended {
		return httpserver.OK(c, http.StatusOK, out.Task)
	}
	c.Response().Header().Set(echo.HeaderLocation, acceptedOf(id).StatusURL)
	return httpserver.OK(c, http.StatusAccepted, out.Task)
}
