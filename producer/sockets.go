package producer

import (
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/ws"
	"github.com/penstock/penstock/schema/spec"
)

// openSockets builds the WebSocket on what the other faces stand on.
func openSockets(cfg Config, d Deps, p parts, intake *ingest.Intake, m *ingest.Metrics, limits *admit.Limits, desk *cancel.Desk) (*ws.API, error) {
	return ws.New(ws.Deps{
		Intake: intake, Metrics: m, Limits: limits, Desk: desk, Follower: d.Follower, Store: p.memory, IDs: p.minter,
		Results: p.claims, Auth: d.Auth, Tickets: p.tickets, Schemas: spec.FS, Log: d.Log, Registry: d.Registry,
	}, ws.Params{
		Lifetime: cfg.SocketLifetime, DrainSpread: cfg.SocketDrain, Sockets: cfg.MaxSockets, PerTenant: cfg.MaxTenantSockets,
		Origins: cfg.SocketOrigins,
	})
}
