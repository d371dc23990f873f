// Package httpserver is the HTTP side that every service shares: Echo with
// limits, request ids, one error body, an access log, metrics, health routes
// and a drain that lets streams end.
//
// A handler reads its body with ReadBody, answers with OK or returns an *Error
// (or any error: what nobody classified is a 500 without details). Handlers
// that hold a connection open for long listen to OnDrain.
package httpserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/lifecycle"
)

// Server is one API listener and, if configured, one admin listener.
type Server struct {
	cfg   Config
	log   *slog.Logger
	echo  *echo.Echo
	ready lifecycle.Readiness
	bad   error // a configuration that New could not use; Listen returns it

	metrics  *metrics
	patience patience
	routes   func() map[string]bool // by path; called first when all are there

	mux        *http.ServeMux // of the admin listener
	api, admin *http.Server
	apiLn      net.Listener // nil until Listen
	adminLn    net.Listener

	mu    sync.Mutex
	hooks []func() // run once, when the drain begins
}

// New returns a server with its middleware and health routes, and does no I/O.
// A bad configuration shows at Listen. If reg also gathers, as a
// *prometheus.Registry does, the admin listener serves it at /metrics.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Server {
	s := &Server{cfg: cfg, log: log, echo: echo.New(), bad: cfg.Validate()}
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.Logger.SetOutput(slogWriter{log})
	s.echo.HTTPErrorHandler = s.handleError
	s.trust()
	s.metrics, s.routes = newMetrics(reg), sync.OnceValue(func() map[string]bool { return routePaths(s.echo) })
	s.echo.Use(s.identify, s.observe, compress(), s.recover)
	s.mountHealth()
	s.mux = newAdminMux(&s.ready, reg)
	s.api, s.admin = s.newHTTP(s), s.newHTTP(s.mux)
	return s
}

// Echo returns the router, for the services to add their routes to.
func (s *Server) Echo() *echo.Echo { return s.echo }

// Mount serves a path, or with a final * all that lies below it, by a handler
// that knows nothing of Echo.
func (s *Server) Mount(path string, h http.Handler) { s.echo.Any(path, echo.WrapHandler(h)) }

// Readiness returns what drives /readyz and /startupz.
func (s *Server) Readiness() *lifecycle.Readiness { return &s.ready }

// AdminMux returns the routes of the admin listener: /metrics, /debug/pprof/
// and health, to which a service may add.
func (s *Server) AdminMux() *http.ServeMux { return s.mux }

// Addr returns the address that Listen bound, or "" before.
func (s *Server) Addr() string { return addrOf(s.apiLn) }

// AdminAddr returns the address of the admin listener, or "" without one.
func (s *Server) AdminAddr() string { return addrOf(s.adminLn) }

// OnDrain registers a function that runs once, when the server stops taking
// requests: a streaming handler then says goodbye and returns.
func (s *Server) OnDrain(hook func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(s.hooks, hook)
}

// Listen binds the listeners; port 0 picks a free one. It binds both or none.
func (s *Server) Listen() error {
	if s.bad != nil {
		return s.bad
	}
	ln, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen %s: %w", s.cfg.Listen, err)
	}
	if s.cfg.AdminListen != "" {
		s.adminLn, err = net.Listen("tcp", s.cfg.AdminListen)
		if err != nil {
			return errors.Join(fmt.Errorf("admin_listen %s: %w", s.cfg.AdminListen, err), ln.Close())
		}
	}
	s.apiLn = ln
	return nil
}

// Close gives back the listeners of a server that will not be served.
func (s *Server) Close() error {
	return errors.Join(closeIf(s.apiLn), closeIf(s.adminLn))
}

// Serve serves what Listen bound until ctx is done, then drains: readiness off,
// DrainDelay, the OnDrain hooks, no new connections, and up to DrainGrace for
// requests in flight. It returns nil after a full drain, and an error naming
// what was cut. The admin listener stays up until the end.
func (s *Server) Serve(ctx context.Context) error {
	if s.apiLn == nil {
		return errors.New("serve: Listen was not called")
	}
	g, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	g.Go(func() error { return serve(s.api, s.apiLn) })
	if s.adminLn != nil {
		g.Go(func() error { return serve(s.admin, s.adminLn) })
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return s.drain()
		case <-failed.Done():
			return errors.Join(s.api.Close(), s.admin.Close())
		}
	})
	return g.Wait()
}

// drain stops the intake and waits for what is in flight.
func (s *Server) drain() error {
	s.ready.Drain()
	s.log.Info("draining http server", "delay", s.cfg.DrainDelay, "grace", s.cfg.DrainGrace)
	wait := time.NewTimer(s.cfg.DrainDelay)
	<-wait.C
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainGrace)
	defer cancel()
	var hooks sync.WaitGroup
	for _, hook := range s.takeHooks() {
		hooks.Go(hook)
	}
	err := s.api.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("drain http server: requests were cut after %s: %w", s.cfg.DrainGrace, errors.Join(err, s.api.Close()))
	}
	hooks.Wait()
	return errors.Join(err, s.admin.Close())
}

func (s *Server) takeHooks() []func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	hooks := s.hooks
	s.hooks = nil
	return hooks
}

// trust decides whose forwarding headers are believed: nobody's, unless
// proxies are named. Echo's own default believes every private network.
func (s *Server) trust() {
	s.echo.IPExtractor, s.echo.SchemeExtractor = echo.ExtractIPDirect(), echo.ExtractSchemeDirect()
	nets, err := s.cfg.proxies()
	if err != nil || len(nets) == 0 {
		return
	}
	opts := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, n := range nets {
		opts = append(opts, echo.TrustIPRange(n))
	}
	s.echo.IPExtractor, s.echo.SchemeExtractor = echo.ExtractIPFromXFFHeader(opts...), echo.ExtractSchemeFromHeaders(opts...)
}

// newHTTP speaks HTTP/1.1 and, without TLS, HTTP/2 to those who start with it.
func (s *Server) newHTTP(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       boundSend,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // bad handshakes and resets: noise to us
	}
}

// sendBuffer is what the kernel may hold for a client that does not read. By
// itself it lets that grow to megabytes: of each of thousands of streams, and
// for minutes before anybody notices that the client has stopped.
const sendBuffer = 128 << 10

func boundSend(ctx context.Context, c net.Conn) context.Context {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // a connection that cannot be bounded still works
	}
	return ctx
}

func serve(srv *http.Server, ln net.Listener) error {
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	return nil
}

func addrOf(ln net.Listener) string {
	if ln == nil {
		return ""
	}
	return ln.Addr().String()
}

func closeIf(ln net.Listener) error {
	if ln == nil {
		return nil
	}
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// slogWriter carries Echo's own rare warnings into the log.
type slogWriter struct{ log *slog.Logger }

func (w slogWriter) Write(p []byte) (int, error) {
	w.log.Debug("echo", "line", string(p))
	return len(p), nil
}
