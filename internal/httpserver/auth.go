package httpserver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/schema/fault"
)

// Authenticate lets in only callers that a knows and who hold every scope
// given: 401 or 403 for the others. Handlers find the caller with Principal. A
// caller who was let in is checked again by the same middleware.
func Authenticate(a auth.Authenticator, scopes ...string) echo.MiddlewareFunc {
	return enter(func(c echo.Context) (auth.Principal, error) { return byKey(c, a) }, scopes)
}

// AuthenticateOrTicket is Authenticate that also takes a ticket from the query,
// ?ticket=…, of a caller who sends no Authorization. On a route with an :id it
// must be the ticket of this task. Its time is for connecting: who is checked
// again needs only that the key behind the ticket is still good. An a that is no
// auth.Finder takes no tickets.
func AuthenticateOrTicket(a auth.Authenticator, t *ticket.Signer, scopes ...string) echo.MiddlewareFunc {
	return enter(func(c echo.Context) (auth.Principal, error) {
		text := c.QueryParam("ticket")
		if text == "" || c.Request().Header.Get(echo.HeaderAuthorization) != "" {
			return byKey(c, a)
		}
		return byTicket(c, a, t, text)
	}, scopes)
}

func enter(find func(echo.Context) (auth.Principal, error), scopes []string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := identity(c, find, scopes); err != nil {
				return err
			}
			return next(c)
		}
	}
}

// identity finds out who asks, who must have the scopes, and notes it in the
// request. It is apart from what calls it because that stays on the stack of
// every event stream for as long as it is open.
func identity(c echo.Context, find func(echo.Context) (auth.Principal, error), scopes []string) error {
	p, err := find(c)
	for _, scope := range scopes {
		if err == nil {
			err = p.Require(scope)
		}
	}
	if err != nil {
		return err
	}
	req := c.Request()
	c.SetRequest(req.WithContext(auth.With(req.Context(), p)))
	return nil
}

func byKey(c echo.Context, a auth.Authenticator) (auth.Principal, error) {
	req := c.Request()
	return a.Authenticate(req.Context(), bearer(req.Header.Get(echo.HeaderAuthorization)))
}

func byTicket(c echo.Context, a auth.Authenticator, t *ticket.Signer, text string) (auth.Principal, error) {
	g, err := t.Read(text)
	if err != nil {
		return auth.Principal{}, err
	}
	ctx := c.Request().Context()
	if _, again := auth.From(ctx); !again && !time.Now().Before(g.Expires) {
		return auth.Principal{}, Fail(fault.Unauthorized, "the ticket has expired: ask for another one")
	}
	if id := c.Param("id"); id != "" && id != string(g.Task) {
		return auth.Principal{}, Fail(fault.Forbidden, "the ticket is not for this task: ask for one that is")
	}
	keys, ok := a.(auth.Finder)
	if !ok {
		return auth.Principal{}, fmt.Errorf("%w: tickets are not taken", auth.ErrUnauthenticated)
	}
	p, err := keys.Find(ctx, g.KeyID)
	p.Only = g.Task
	p.Scopes = narrowed(p, g)
	return p, err
}

// narrowed are the scopes that a key hands on to its tickets: to read the one
// task, or to use a socket.
func narrowed(p auth.Principal, g ticket.Grant) []string {
	most := []string{auth.ScopeRead, auth.ScopeSubmit}
	if g.Task != "" {
		most = most[:1]
	}
	return slices.DeleteFunc(most, func(scope string) bool { return !p.Has(scope) })
}

// Principal returns the caller that Authenticate let in. Calling it on a route
// without Authenticate is an error of the programmer: it panics, so that such a
// route answers 500 and serves nobody's tasks.
func Principal(c echo.Context) auth.Principal {
	p, ok := auth.From(c.Request().Context())
	if !ok {
		panic(errors.New("httpserver: Principal on a route without Authenticate"))
	}
	return p
}

// bearer cuts the token out of "Bearer <token>"; the scheme has no case.
func bearer(header string) string {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
