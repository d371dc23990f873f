package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// WebhookSecret returns what the caller's webhooks are signed with, whsec_…, as
// the libraries of Standard Webhooks take it. It is the same for all keys of a
// tenant.
func (c *Client) WebhookSecret(ctx context.Context) (string, error) {
	out, _, err := call[api.WebhookSecret](ctx, c, Call{Method: http.MethodGet, Path: "/v1/webhooks/secret"})
	return out.Secret, err
}

// Webhook returns what became of a task's webhook: each attempt, and when the
// next will be made.
func (c *Client) Webhook(ctx context.Context, id task.ID) (webhook.Log, error) {
	out, _, err := call[webhook.Log](ctx, c, Call{Method: http.MethodGet, Path: taskPath(id) + "/webhook", Read: true})
	return out, err
}

// BatchWebhook is Webhook of a batch of the OpenAI API. Until the batch has
// ended it has no deliveries.
func (c *Client) BatchWebhook(ctx context.Context, id string) (webhook.Log, error) {
	out, _, err := call[webhook.Log](ctx, c, Call{Method: http.MethodGet, Path: "/v1/batches/" + url.PathEscape(id) + "/webhook"})
	return out, err
}
