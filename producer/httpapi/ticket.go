package httpapi

import (
	"net/http"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// postTicket answers with a ticket that reads one task of the caller's.
func (a *API) postTicket(c echo.Context) error {
	id, err := lookup.CheckID(a.d.IDs, c.Param("id"), httpserver.Principal(c).Tenant)
	if err != nil {
		return err
	}
	return a.issue(c, api.NewAccepted(id).EventsURL, id, ticket.TaskLife)
}

// postSocketTicket answers with a ticket that opens a WebSocket.
func (a *API) postSocketTicket(c echo.Context) error {
	return a.issue(c, "/v1/ws", "", ticket.SocketLife)
}

// issue signs a ticket in the name of the caller's key.
func (a *API) issue(c echo.Context, path string, id task.ID, life time.Duration) error {
	expires := time.Now().Add(life).UTC().Truncate(time.Second)
	text, err := a.d.Tickets.Sign(ticket.Grant{KeyID: httpserver.Principal(c).KeyID, Task: id, Expires: expires})
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return httpserver.OK(c, http.StatusOK, api.Ticket{
		Ticket: text, URL: path + "?" + url.Values{"ticket": {text}}.Encode(), ExpiresAt: expires,
	})
}
