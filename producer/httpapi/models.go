package httpapi

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

const modelsPath = "/v1/models"

// models is the catalog in the OpenAI shape, in the catalog's order.
type models struct {
	list api.ModelList
	byID map[string]api.Model
}

func listModels(c *catalog.Catalog) models {
	m := models{list: api.ModelList{Object: "list", Data: []api.Model{}}, byID: make(map[string]api.Model)}
	for _, of := range c.Models {
		one := api.Model{ID: of.ID, Object: "model", Created: of.Created, OwnedBy: of.OwnedBy}
		m.list.Data = append(m.list.Data, one)
		m.byID[one.ID] = one
	}
	return m
}

// getModels answers without an envelope, as OpenAI clients expect.
func (a *API) getModels(c echo.Context) error {
	return c.JSON(http.StatusOK, a.models.list)
}

// getModel takes the id from the decoded path: ids contain slashes, which
// clients send as they are or as %2F.
func (a *API) getModel(c echo.Context) error {
	id := strings.TrimPrefix(c.Request().URL.Path, modelsPath+"/")
	if m, ok := a.models.byID[id]; ok {
		return c.JSON(http.StatusOK, m)
	}
	e := httpserver.Fail(fault.NotFound, "no such model; see GET /v1/models for those there are")
	e.Param = "model"
	return e
}
