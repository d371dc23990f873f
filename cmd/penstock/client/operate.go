package client

import (
	"context"
	"net/url"
)

// Operate calls a route of the operator API and decodes the data it answers.
func Operate[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (T, error) {
	out, _, err := call[T](ctx, c, request{method: method, base: c.admin, path: path, query: query, body: body})
	return out, err
}
