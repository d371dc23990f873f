package httpapi

import (
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// request is what came in, before it is decoded. Its owner leaves the pass.
type request struct {
	body []byte
	key  string
	pass *admit.Pass
}

// read checks the headers, reserves room for the body and reads it.
func (a *API) read(c echo.Context, tenant string) (request, error) {
	h := c.Request().Header
	if err := checkMediaType(h.Get(echo.HeaderContentType)); err != nil {
		return request{}, err
	}
	key, err := ingest.Key(h.Values("Idempotency-Key"))
	if err != nil {
		return request{}, err
	}
	pass, err := a.d.Limits.Enter(tenant, announced(c.Request(), httpserver.BodyLimit(c)))
	if err != nil {
		return request{}, err
	}
	body, err := httpserver.ReadBody(c, 0)
	if err != nil {
		pass.Leave()
		return request{}, err
	}
	pass.Shrink(int64(len(body)))
	return request{body: body, key: key, pass: pass}, nil
}

// announced is how large the body may become: what it says, if that can be
// believed, else the limit.
func announced(r *http.Request, limit int64) int64 {
	if r.ContentLength >= 0 && r.ContentLength < limit && r.Header.Get(echo.HeaderContentEncoding) == "" {
		return r.ContentLength
	}
	return limit
}

// checkMediaType takes application/json in UTF-8.
func checkMediaType(contentType string) error {
	if contentType == echo.MIMEApplicationJSON { // as nearly everybody sends it
		return nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	charset, given := params["charset"]
	switch {
	case contentType == "":
		return fault.New(fault.Unsupported, "send Content-Type: application/json")
	case err != nil || media != echo.MIMEApplicationJSON:
		return fault.New(fault.Unsupported, "this media type is not taken; send application/json")
	case given && !strings.EqualFold(charset, "utf-8"):
		return fault.New(fault.Unsupported, "this charset is not taken; JSON is UTF-8")
	}
	return nil
}

// preferWait reads `wait` of the Prefer header (RFC 7240), cut to api.MaxWait.
// What it does not understand it ignores, as a preference is to be.
func preferWait(h http.Header) (time.Duration, bool) {
	for _, line := range h.Values("Prefer") {
		for preference := range strings.SplitSeq(line, ",") {
			preference, _, _ = strings.Cut(preference, ";")
			name, value, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 31)
			if err != nil || seconds == 0 {
				return 0, false
			}
			return min(time.Duration(seconds)*time.Second, api.MaxWait), true
		}
	}
	return 0, false
}

// answer gives a fault its HTTP form; the offence of a body also has a path.
func answer(err error) error {
	if v, ok := errors.AsType[*validate.Error](err); ok {
		e := httpserver.Fail(v.Code, "%s", v.Error())
		e.Param = v.Path
		return e
	}
	return err
}
