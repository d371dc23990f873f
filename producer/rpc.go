package producer

import (
	"context"
	"errors"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/producer/grpcapi"
)

// openRPC binds the gRPC listener, if one is configured. Beyond loopback it
// needs what the HTTP listener needs.
func (s *Service) openRPC(cfg Config, d grpcapi.Deps) (err error) {
	if cfg.GRPCListen == "" {
		return nil
	}
	_, secret := cfg.IDConfig.Minter(cfg.GRPCListen)
	if err := errors.Join(auth.CheckBind(d.Auth, cfg.GRPCListen), secret); err != nil {
		return err
	}
	if s.rpc, err = grpcapi.New(d, grpcapi.Params{MessageLimit: int(cfg.BodyLimit), DrainGrace: cfg.DrainGrace}); err != nil {
		return err
	}
	s.stack.PushClose("grpc", s.rpc.Close)
	return s.rpc.Listen(cfg.GRPCListen)
}

// GRPCAddr returns the address of the gRPC API, or "" without one.
func (s *Service) GRPCAddr() string {
	if s.rpc == nil {
		return ""
	}
	return s.rpc.Addr()
}

// serveRPC serves gRPC until Drain or the end of ctx, and returns once its
// calls have finished.
func (s *Service) serveRPC(ctx context.Context) error {
	if s.rpc == nil {
		return nil
	}
	err := s.rpc.Serve(ctx)
	if err != nil {
		s.log.Error("grpc api ended", "err", err)
	}
	return err
}
