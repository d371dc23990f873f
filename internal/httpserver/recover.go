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
			switch cause := asError(recover()); {
			case cause == nil:
			case errors.Is(cause, http.ErrAbortHandler):
				panic(cause)
			default:
				err = s.panicked(c, cause)
			}
		}()
		return next(c)
	}
}

// asError is what a panic was called with; nil: there was none.
func asError(recovered any) error {
	switch r := recovered.(type) {
	case nil:
		return nil
	case error:
		return r
	default:
		return fmt.Errorf("%v", r)
	}
}

func (s *Server) panicked(c echo.Context, cause error) error {
	s.logPanic(cause, c.Path(), RequestID(c))
	if c.Response().Committed {
		panic(http.ErrAbortHandler)
	}
	return fmt.Errorf("panic: %w", cause)
}

func (s *Server) logPanic(cause error, route, id string) {
	s.log.Error("handler panicked", "err", cause, "route", route, "request_id", id, "stack", string(debug.Stack()))
}
