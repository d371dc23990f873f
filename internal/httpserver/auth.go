package httpserver

import (
	"errors"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
)

// Authenticate lets in only callers that a knows and who hold every scope
// given: 401 or 403 for the others. Handlers find the caller with Principal.
func Authenticate(a auth.Authenticator, scopes ...string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			req := c.Request()
			p, err := a.Authenticate(req.Context(), bearer(req.Header.Get(echo.HeaderAuthorization)))
			for _, scope := range scopes {
				if err == nil {
					err = p.Require(scope)
				}
			}
			if err != nil {
				return err
			}
			c.SetRequest(req.WithContext(auth.With(req.Context(), p)))
			return next(c)
		}
	}
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
