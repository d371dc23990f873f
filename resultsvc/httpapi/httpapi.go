// Package httpapi is the face of the results service: its transports, mounted
// behind one authentication.
package httpapi

import (
	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/ticket"
)

// Transport is one way to read tasks. Callers come by a key, and where one task
// alone is read also by a ticket of it.
type Transport interface {
	Register(e *echo.Echo, byKey, orByTicket echo.MiddlewareFunc)
	// Drain ends what stays open for long. It does not wait.
	Drain()
}

// API is all of them.
type API struct {
	auth       auth.Authenticator
	tickets    *ticket.Signer
	transports []Transport
}

// New returns the face over transports, for callers that may read.
func New(a auth.Authenticator, tickets *ticket.Signer, transports ...Transport) *API {
	return &API{auth: a, tickets: tickets, transports: transports}
}

// Register mounts the read routes.
func (a *API) Register(e *echo.Echo) {
	byKey := httpserver.Authenticate(a.auth, auth.ScopeRead)
	orByTicket := httpserver.AuthenticateOrTicket(a.auth, a.tickets, auth.ScopeRead)
	for _, t := range a.transports {
		t.Register(e, byKey, orByTicket)
	}
}

// Drain makes long polls answer with what is known, and asks event streams to
// reconnect, each at its own moment. The HTTP server calls it when it stops
// taking requests.
func (a *API) Drain() {
	for _, t := range a.transports {
		t.Drain()
	}
}
