package client

import (
	"context"
	"net/url"

	"github.com/penstock/penstock/schema/client"
)

// Operate calls a route of the operator API and decodes the data it answers.
func Operate[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (T, error) {
	res, err := c.admin.Do(ctx, client.Call{Method: method, Path: path, Query: query, Body: body})
	if err != nil {
		var none T
		return none, err
	}
	return client.Data[T](res)
}
