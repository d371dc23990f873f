package httpserver

import (
	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/telemetry"
)

// HeaderRequestID names a request in the answer, the log and the error body.
const HeaderRequestID = "X-Request-Id"

const (
	requestIDKey  = "penstock.request_id"
	bodyLimitKey  = "penstock.body_limit"
	accessAttrKey = "penstock.access_attrs"
)

// identify gives every request its id and its place in a trace. A caller's own
// id is kept if it is short and printable; its traceparent becomes the parent.
func (s *Server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		req := c.Request()
		id := telemetry.RequestID(req.Header.Get(HeaderRequestID))
		c.Set(requestIDKey, id)
		c.Set(bodyLimitKey, int64(s.cfg.BodyLimit))
		c.Response().Header().Set(HeaderRequestID, id)
		span := telemetry.ChildTraceParent(req.Header.Get(telemetry.HeaderTraceParent))
		c.SetRequest(req.WithContext(telemetry.WithTraceParent(req.Context(), span)))
		return next(c)
	}
}

// RequestID returns the id of the request, also sent as X-Request-Id.
func RequestID(c echo.Context) string {
	id, _ := c.Get(requestIDKey).(string)
	return id
}
