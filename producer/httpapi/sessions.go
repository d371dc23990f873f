package httpapi

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// shownTurns is how many turns of a session are shown to who names no limit.
const shownTurns = 50

func (a *API) registerSessions(e *echo.Echo) {
	submit := httpserver.Authenticate(a.d.Auth, auth.ScopeSubmit)
	e.POST("/v1/sessions/:id", a.postSession, submit)
	e.GET("/v1/sessions/:id", a.getSession, httpserver.Authenticate(a.d.Auth, auth.ScopeRead))
	e.DELETE("/v1/sessions/:id", a.deleteSession, submit)
}

// postSession opens a session, or sets anew what it is opened with.
func (a *API) postSession(c echo.Context) error {
	tenant := httpserver.Principal(c).Tenant
	id, err := sessionID(c)
	if err != nil {
		return answer(err)
	}
	in, err := a.read(c, tenant)
	if err != nil {
		return answer(err)
	}
	defer in.pass.Leave()
	var s api.SessionSettings
	if err := a.session.Decode(in.body, &s); err != nil {
		return answer(err)
	}
	if err := a.d.Limits.Task(tenant); err != nil {
		return err
	}
	out, created, err := a.d.Sessions.Open(c.Request().Context(), tenant, id, s)
	if err != nil {
		return answer(err)
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return httpserver.OK(c, status, out)
}

// getSession shows a session with its newest turns.
func (a *API) getSession(c echo.Context) error {
	id, err := sessionID(c)
	if err != nil {
		return answer(err)
	}
	newest, err := turnLimit(c)
	if err != nil {
		return answer(err)
	}
	out, err := a.d.Sessions.Show(c.Request().Context(), httpserver.Principal(c).Tenant, id, newest)
	if err != nil {
		return answer(err)
	}
	return httpserver.OK(c, http.StatusOK, out)
}

// deleteSession makes a session forget everything.
func (a *API) deleteSession(c echo.Context) error {
	tenant := httpserver.Principal(c).Tenant
	id, err := sessionID(c)
	if err != nil {
		return answer(err)
	}
	if err := a.d.Limits.Task(tenant); err != nil {
		return err
	}
	if err := a.d.Sessions.Forget(c.Request().Context(), tenant, id); err != nil {
		return answer(err)
	}
	return c.NoContent(http.StatusNoContent)
}

// sessionID is the id in the path. It is the caller's own and may hold anything,
// so slashes come as %2F.
func sessionID(c echo.Context) (string, error) {
	id := c.Param("id")
	if c.Request().URL.RawPath != "" {
		plain, err := url.PathUnescape(id)
		if err != nil {
			return "", invalid("session_id", "is not percent-encoded as a path is")
		}
		id = plain
	}
	if len(id) > api.MaxName {
		return "", &validate.Error{
			Code: fault.TooLarge, Path: "session_id", Offset: -1,
			Reason: "has " + strconv.Itoa(len(id)) + " bytes, at most " + strconv.Itoa(api.MaxName) + " are allowed",
		}
	}
	return id, nil
}

// turnLimit reads the parameter limit.
func turnLimit(c echo.Context) (int, error) {
	text := c.QueryParam("limit")
	if text == "" {
		return shownTurns, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > api.MaxShownTurns {
		return 0, invalid("limit", "expected a number from 1 to "+strconv.Itoa(api.MaxShownTurns))
	}
	return n, nil
}
