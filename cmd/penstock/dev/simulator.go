package dev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/penstock/penstock/worker/backend/simulated"
)

// simulator is the simulated engine on a port of its own: the worker speaks to
// it over HTTP, as to any engine, and anybody can reach its fault switches.
type simulator struct {
	ln  net.Listener
	srv *http.Server
}

func openSimulator() (*simulator, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the simulated engine: %w", err)
	}
	engine := simulated.New(simulated.DefaultParams())
	return &simulator{ln: ln, srv: &http.Server{Handler: engine.Handler(), ReadHeaderTimeout: 5 * time.Second}}, nil
}

// URL is where the engine answers.
func (s *simulator) URL() string { return "http://" + s.ln.Addr().String() }

// run serves until close.
func (s *simulator) run(context.Context) error {
	if err := s.srv.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the simulated engine: %w", err)
	}
	return nil
}

// close cuts what is in flight: nobody is left who wants it.
func (s *simulator) close() error { return errors.Join(s.srv.Close(), ignoreClosed(s.ln.Close())) }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
