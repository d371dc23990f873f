package httpapi

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/producer/openai"
)

// longestRetryAfter is the longest wait that SDKs believe.
const longestRetryAfter = 2 * time.Minute

// writeOpenAIError writes an error as OpenAI clients read it.
func writeOpenAIError(c echo.Context, e *httpserver.Error) error {
	f := openai.NewFailure(e.Status, e.Code, e.Message, e.Param)
	h := c.Response().Header()
	if wait := min(e.RetryAfter, longestRetryAfter); wait > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(wait.Seconds())), 10))
		h.Set("Retry-After-Ms", strconv.FormatInt(wait.Milliseconds(), 10))
		if f.Status == http.StatusTooManyRequests {
			h.Set(headerRateRemaining, "0")
			h.Set(headerRateReset, wait.Round(time.Millisecond).String())
		}
	}
	return c.Blob(f.Status, echo.MIMEApplicationJSON, f.Body())
}
