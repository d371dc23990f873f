package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// Pools of development.
const (
	defaultPool = "default"
	embedPool   = "embed"
)

// simulatedModels are the models of development, in the order of /v1/models.
func simulatedModels(url string) *catalog.Catalog {
	return &catalog.Catalog{
		Models: []catalog.Model{
			{ID: simulated.ChatModel, Pool: defaultPool, Kinds: []task.Kind{task.Chat, task.Completion}},
			{ID: simulated.EmbedModel, Pool: embedPool, Kinds: []task.Kind{task.Embedding}},
		},
		Pools: []catalog.Pool{
			{Name: defaultPool, Backends: []catalog.Backend{{Name: "simulated", URL: "openai+" + url, Models: []string{simulated.ChatModel}}}},
			{Name: embedPool, Backends: []catalog.Backend{{Name: "simulated", URL: "openai+" + url, Models: []string{simulated.EmbedModel}}}},
		},
	}
}

// discover asks an engine which models it has. An engine that keeps no list
// serves one model, named after its protocol.
func discover(ctx context.Context, url string) (*catalog.Catalog, error) {
	protocol, base, ok := strings.Cut(url, "+")
	if !ok {
		protocol, base = "openai", url
	}
	names := []string{protocol}
	if protocol == "openai" {
		var err error
		if names, err = listModels(ctx, base); err != nil {
			return nil, err
		}
	}
	c := &catalog.Catalog{Pools: []catalog.Pool{{
		Name: defaultPool, Backends: []catalog.Backend{{Name: "backend", URL: protocol + "+" + base, Models: names}},
	}}}
	for _, name := range names {
		c.Models = append(c.Models, catalog.Model{
			ID: name, Pool: defaultPool, Kinds: []task.Kind{task.Chat, task.Completion, task.Embedding},
		})
	}
	return c, nil
}

func listModels(ctx context.Context, base string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(strings.TrimSuffix(base, "/"), "/v1")+"/v1/models", nil)
	if err != nil {
		return nil, fmt.Errorf("--backend: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("--backend: ask the engine for its models: %w", err)
	}
	defer res.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if res.StatusCode != http.StatusOK || json.NewDecoder(res.Body).Decode(&list) != nil || len(list.Data) == 0 {
		return nil, fmt.Errorf("--backend: %s names no models (%s)", req.URL, res.Status)
	}
	names := make([]string, len(list.Data))
	for i, m := range list.Data {
		names[i] = m.ID
	}
	return names, nil
}
