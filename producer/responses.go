package producer

import (
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/responses"
	"github.com/penstock/penstock/schema/api"
)

// openResponses returns the desk of the Responses API.
func openResponses(cfg Config, d Deps, p parts, cancels *cancel.Desk) *responses.Desk {
	return responses.New(responses.Params{
		Publisher: p.pub, Store: p.conversations, Claims: p.claims, Tasks: lookup.NewReader(p.memory, d.Follower, p.claims),
		Cancels: cancels, IDs: p.minter, Life: cfg.MaxTaskAge + cfg.ResultTTL, MaxChain: max(p.claims.Limit(), api.MaxBody),
	})
}
