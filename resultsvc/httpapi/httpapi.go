// Package httpapi is the face of the results service: its transports, mounted
// behind one authentication.
package httpapi

import (
	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/httpserver"
)

// Transport is one way to read tasks.
type Transport interface {
	Register(e *echo.Echo, authenticate echo.MiddlewareFunc)
	// Drain ends what stays open for long. It does not wait.
	Drain()
}

// API is all of them.
type API struct {
	auth       auth.Authenticator
	transports []Transport
}

// New returns the face over transports, for callers that may read.
func New(a auth.Authenticator, transports ...Transport) *API {
	return &API{auth: a, transports: transports}
}

// Register mounts the read routes.
func (a *API) Register(e *echo.Echo) {
	read := httpserver.Authenticate(a.auth, auth.ScopeRead)
	for _, t := range a.transports {
		t.Register(e, read)
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
