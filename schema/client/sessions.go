package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/penstock/penstock/schema/api"
)

// OpenSession opens a session, or changes what it is opened with; what s leaves
// out has its default. A session that needs no settings needs no opening.
func (c *Client) OpenSession(ctx context.Context, id string, s api.SessionSettings) (api.Session, error) {
	out, _, err := call[api.Session](ctx, c, Call{Method: http.MethodPost, Path: sessionPath(id), Body: s, Repeatable: true})
	return out, err
}

// Session returns a session with its newest turns, at most so many; 0 leaves
// their number to the server. Errors: NotFound for one that is not there.
func (c *Client) Session(ctx context.Context, id string, turns int) (api.Session, error) {
	ask := Call{Method: http.MethodGet, Path: sessionPath(id)}
	if turns > 0 {
		ask.Query = url.Values{"limit": {strconv.Itoa(turns)}}
	}
	out, _, err := call[api.Session](ctx, c, ask)
	return out, err
}

// DeleteSession makes a session forget everything. One that is not there is no
// error.
func (c *Client) DeleteSession(ctx context.Context, id string) error {
	res, err := c.Do(ctx, Call{Method: http.MethodDelete, Path: sessionPath(id), Repeatable: true})
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return fmt.Errorf("close answer: %w", err)
	}
	return nil
}

func sessionPath(id string) string { return "/v1/sessions/" + url.PathEscape(id) }
