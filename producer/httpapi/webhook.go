package httpapi

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/schema/api"
)

// getWebhookSecret tells a tenant what its webhooks are signed with. Nobody on
// the way may keep it.
func (a *API) getWebhookSecret(c echo.Context) error {
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	secret := a.d.Secrets.Secret(httpserver.Principal(c).Tenant)
	return httpserver.OK(c, http.StatusOK, api.WebhookSecret{Secret: secret.Reveal()})
}
