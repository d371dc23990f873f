package httpapi

import (
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
)

// Headers of the OpenAI API that tell how a caller stands to its rate.
const (
	headerRateLimit     = "X-Ratelimit-Limit-Requests"
	headerRateRemaining = "X-Ratelimit-Remaining-Requests"
	headerRateReset     = "X-Ratelimit-Reset-Requests"
)

// tellRate has every answer of a route tell how its tenant stands to its rate of
// tasks, if there is one, as it is when the answer begins. What a refusal says of
// it stays.
func (a *API) tellRate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		tenant := httpserver.Principal(c).Tenant
		c.Response().Before(func() {
			s, limited := a.d.Limits.Standing(tenant)
			if !limited {
				return
			}
			h := c.Response().Header()
			h.Set(headerRateLimit, strconv.Itoa(s.Limit))
			if h.Get(headerRateRemaining) == "" {
				h.Set(headerRateRemaining, strconv.Itoa(s.Remaining))
				h.Set(headerRateReset, s.Reset.Round(time.Millisecond).String())
			}
		})
		return next(c)
	}
}
