package httpserver

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/labstack/echo/v4"
)

// recover turns a handler's panic into one log line with the stack and a 500.
// If the answer has begun it cuts the connection: a clean end would be read as
// success. http.ErrAbortHandler goes on: it is how a handler does that itself.
func (s *Server) recover(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			switch r := recover().(type) {
			case nil:
			case error:
				if errors.Is(r, http.ErrAbortHandler) {
					panic(r)
				}
				err = s.panicked(c, r)
			default:
				err = s.panicked(c, fmt.Errorf("%v", r))
			}
		}()
		return next(c)
	}
}

func (s *Server) panicked(c echo.Context, cause error) error {
	s.log.Error("handler panicked", "err", cause, "route", c.Path(), "request_id", RequestID(c), "stack", string(debug.Stack()))
	if c.Response().Committed {
		panic(http.ErrAbortHandler)
	}
	return fmt.Errorf("panic: %w", cause)
}
