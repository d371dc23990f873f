package worker

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/backend/jsonbatch"
	"github.com/penstock/penstock/worker/backend/openaihttp"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// Backend makes the adapter that a catalog entry's URL names. It does no I/O.
func Backend(p catalog.Pool, b catalog.Backend) (backend.Backend, error) {
	scheme, _, _ := strings.Cut(b.URL, "://")
	switch {
	case strings.HasPrefix(scheme, "json+"):
		return jsonbatch.New(jsonbatch.Params{
			Name: b.Name, URL: strings.TrimPrefix(b.URL, "json+"), APIKey: b.APIKey, MaxBatch: p.Batch.MaxTasks,
		})
	case scheme == "sim":
		return simulatedBackend(b)
	default:
		return openaihttp.New(openaihttp.Params{
			Name: b.Name, URL: strings.TrimPrefix(b.URL, "openai+"), APIKey: b.APIKey, MaxBatch: p.Batch.MaxTasks,
			Streamed: b.Streamed,
		})
	}
}

// simulatedBackend reads the engine's costs from the URL's query:
// sim://?base=20ms&item=1ms&token=20ms&max=32&tokens=16.
func simulatedBackend(b catalog.Backend) (backend.Backend, error) {
	u, err := url.Parse(b.URL)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", b.Name, err)
	}
	p := simulated.DefaultParams()
	p.Name, p.Models = b.Name, b.Models
	for name, values := range u.Query() {
		if err := simulatedOption(&p, name, values[0]); err != nil {
			return nil, fmt.Errorf("backend %s: %s: %w", b.Name, name, err)
		}
	}
	return simulated.New(p), nil
}

func simulatedOption(p *simulated.Params, name, value string) error {
	var err error
	switch name {
	case "base":
		p.Base, err = time.ParseDuration(value)
	case "item":
		p.Item, err = time.ParseDuration(value)
	case "token":
		p.Token, err = time.ParseDuration(value)
	case "max":
		p.Max, err = strconv.Atoi(value)
	case "tokens":
		p.Tokens, err = strconv.Atoi(value)
	default:
		err = fmt.Errorf("known are base, item, token, max and tokens")
	}
	return err
}
