package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
)

// Filter says what an input is to be thought of: *moderation.Filter.
type Filter interface {
	Ask(ctx context.Context, body []byte) ([]byte, error)
}

// codeUnknownURL is what the OpenAI API says of a route that it has not got.
const codeUnknownURL = "unknown_url"

// postModeration asks the operator's filter. It is a plain call and makes no
// task; where there is no filter, there is no such route.
func (a *API) postModeration(c echo.Context) error {
	if a.d.Filter == nil {
		return &httpserver.Error{
			Status: http.StatusNotFound, Code: codeUnknownURL,
			Message: "Unknown request URL: POST /v1/moderations. This server has no filter to ask; its operator sets moderation_url.",
		}
	}
	tenant := httpserver.Principal(c).Tenant
	in, err := a.read(c, tenant)
	if err != nil {
		return answer(err)
	}
	defer in.pass.Leave()
	body, ignored, err := a.moderated(in.body)
	if err == nil {
		err = a.d.Limits.Task(tenant)
	}
	if err != nil {
		return answer(err)
	}
	if names := printable(ignored); names != "" {
		c.Response().Header().Set(headerIgnored, names)
	}
	verdict, err := a.d.Filter.Ask(c.Request().Context(), body)
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, verdict)
}

// moderated returns what the filter gets to see of a body, and the names of what
// it does not.
func (a *API) moderated(body []byte) (asked []byte, ignored []string, err error) {
	var all map[string]json.RawMessage
	if err := a.moderation.Decode(body, &all); err != nil {
		return nil, nil, err
	}
	kept := map[string]json.RawMessage{}
	for name, value := range all {
		switch {
		case string(value) == "null":
		case name == "input", name == "model":
			kept[name] = value
		default:
			ignored = append(ignored, name)
		}
	}
	slices.Sort(ignored)
	if asked, err = json.Marshal(kept); err != nil {
		return nil, nil, fmt.Errorf("encode moderation: %w", err)
	}
	return asked, ignored, nil
}
