// Package grpcapi is the gRPC face of the ingress: penstock.v1.MessageRouter and
// penstock.v1.Inference, with health and reflection, on a listener of its own.
//
// It decodes a call, asks what the HTTP faces ask (ingest, cancel, lookup,
// follow) and encodes the answer, so both faces accept, refuse, deduplicate and
// show tasks alike. A request becomes the JSON that HTTP would have got, and is
// checked against the same schema.
//
// Order of a stop: Drain, or the end of Serve's context, turns health off, asks
// watches to reconnect, each at its own moment, lets waiting calls answer and
// takes no new ones; what is left after the grace is cut.
package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/rpc"
	"github.com/penstock/penstock/internal/seats"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/terminal"
)

// Results brings large outputs back: *claimcheck.Desk. The error is of trouble
// that may pass.
type Results interface {
	lookup.Results
	Terminal(ctx context.Context, t *terminal.Terminal) (_ *terminal.Terminal, release func(), err error)
}

// Store is the projection: *taskstore.Store.
type Store interface {
	lookup.Store
	lookup.Briefs
}

// Follower brings events and ends of tasks: *follow.Follower.
type Follower interface {
	lookup.Waiter
	lookup.Coverer
	FollowMany(ctx context.Context, watches []follow.Watch) (*follow.Stream, error)
}

// Deps are the parts that the calls stand on.
type Deps struct {
	Intake   *ingest.Intake
	Metrics  *ingest.Metrics
	Limits   *admit.Limits
	Cancels  *cancel.Desk
	Follower Follower
	Store    Store
	Results  Results
	IDs      lookup.IDs
	Auth     auth.Authenticator
	Schemas  fs.FS        // submit.schema.json and forward.schema.json
	Ready    func() error // what health says; nil is serving
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	MessageLimit int           // largest request in bytes; answers may be twice as large; default 8 MiB
	Streams      int           // watches open at once in this process; default 20,000
	PerTenant    int           // and of one tenant; default 10,000
	WriteTimeout time.Duration // how long a watcher may take for one event; default 8 s
	Lifetime     time.Duration // after which a watcher is asked to reconnect, give or take a fifth; default 30 m
	Recheck      time.Duration // how often a watcher's key is checked again; default 60 s
	DrainSpread  time.Duration // over which a drain spreads its goodbyes; default 20 s, at most half of the grace
	DrainGrace   time.Duration // for calls in flight to finish; default 30 s
}

func (p Params) withDefaults() Params {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&p.WriteTimeout, 8*time.Second)
	set(&p.Lifetime, 30*time.Minute)
	set(&p.Recheck, time.Minute)
	set(&p.DrainGrace, 30*time.Second)
	set(&p.DrainSpread, 20*time.Second)
	p.DrainSpread = min(p.DrainSpread, p.DrainGrace/2)
	for n, otherwise := range map[*int]int{&p.MessageLimit: 8 << 20, &p.Streams: 20_000, &p.PerTenant: 10_000} {
		if *n == 0 {
			*n = otherwise
		}
	}
	return p
}

// Bounds of a connection. One that reached its age is told to go, and cut after
// the grace, which outlasts the watches on it.
const (
	callsPerConnection = 250
	headerBytes        = 32 << 10
	handshake          = 5 * time.Second
	pingAfter          = 30 * time.Second
	pingTimeout        = 10 * time.Second
	pingLeast          = 10 * time.Second // a client that pings more often is cut
	idleAfter          = 15 * time.Minute
	oldAfter           = 30 * time.Minute
	oldGrace           = 45 * time.Minute
	readyEvery         = time.Second // how often health asks
)

// Server is the face and its listener.
type Server struct {
	rpc.UnimplementedInferenceServer
	rpc.UnimplementedMessageRouterServer

	d       Deps
	p       Params
	submit  *validate.Schema
	forward *validate.Schema
	tasks   *lookup.Reader
	seats   *seats.Seats
	metrics *metrics

	grpc    *grpc.Server
	health  *health.Server
	ln      net.Listener   // nil until Listen
	senders sync.WaitGroup // of watches

	draining context.Context // done once calls must not wait any more
	drain    context.CancelFunc
}

// New compiles the schemas and registers the services; it does no I/O.
func New(d Deps, p Params) (*Server, error) {
	set, err := validate.Compile(d.Schemas)
	if err != nil {
		return nil, fmt.Errorf("compile request schemas: %w", err)
	}
	p = p.withDefaults()
	s := &Server{
		d: d, p: p, tasks: lookup.NewReader(d.Store, d.Follower, d.Results), health: health.NewServer(),
		seats: seats.New(seats.Params{All: p.Streams, PerTenant: p.PerTenant}), metrics: newMetrics(d.Registry),
	}
	var errSubmit, errForward error
	s.submit, errSubmit = set.Schema("submit")
	s.forward, errForward = set.Schema("forward")
	if err := errors.Join(errSubmit, errForward); err != nil {
		return nil, err
	}
	s.draining, s.drain = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(s.options()...)
	rpc.RegisterInferenceServer(s.grpc, s)
	rpc.RegisterMessageRouterServer(s.grpc, s)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.report()
	return s, nil
}

func (s *Server) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InTapHandle(s.tap),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(s.p.MessageLimit),
		grpc.MaxSendMsgSize(2 * s.p.MessageLimit),
		grpc.MaxConcurrentStreams(callsPerConnection),
		grpc.MaxHeaderListSize(headerBytes),
		grpc.ConnectionTimeout(handshake),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingLeast, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: pingAfter, Timeout: pingTimeout, MaxConnectionIdle: idleAfter, MaxConnectionAge: oldAfter, MaxConnectionAgeGrace: oldGrace,
		}),
	}
}

// Listen binds an address; port 0 picks a free one.
func (s *Server) Listen(address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("grpc_listen %s: %w", address, err)
	}
	s.ln = ln
	return nil
}

// Use serves a listener that somebody else has bound.
func (s *Server) Use(ln net.Listener) { s.ln = ln }

// Addr returns the address that is served, or "" before Listen.
func (s *Server) Addr() string {
	if s.ln == nil {
		return ""
	}
	return s.ln.Addr().String()
}

// Drain begins the stop and does not wait for it: Serve returns when it is
// done. A second call does nothing.
func (s *Server) Drain() { s.drain() }

// Close gives back what a Server holds that is not served.
func (s *Server) Close() error {
	s.drain()
	s.grpc.Stop()
	if s.ln == nil {
		return nil
	}
	if err := s.ln.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Serve serves what Listen bound until Drain is called or ctx is done, and
// returns once calls in flight have finished. The error names what was cut.
func (s *Server) Serve(ctx context.Context) error {
	if s.ln == nil {
		return errors.New("serve grpc: Listen was not called")
	}
	defer context.AfterFunc(ctx, s.drain)()
	served := make(chan error, 1) // one result, whether or not the drain came first
	var wg sync.WaitGroup
	wg.Go(func() { served <- s.grpc.Serve(s.ln) })
	defer wg.Wait()
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-served:
			s.drain()
			return fmt.Errorf("serve grpc %s: %w", s.Addr(), err)
		case <-tick.C:
			s.report()
		case <-s.draining.Done():
			return s.stop()
		}
	}
}

// report tells health what readiness says.
func (s *Server) report() {
	status := grpc_health_v1.HealthCheckResponse_SERVING
	if s.d.Ready != nil && s.d.Ready() != nil {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	for _, service := range []string{"", rpc.Inference_ServiceDesc.ServiceName, rpc.MessageRouter_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(service, status)
	}
}

// stop waits for the calls in flight, and cuts what the grace does not end.
func (s *Server) stop() error {
	s.health.Shutdown()
	whole := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.grpc.GracefulStop(); close(whole) })
	defer s.senders.Wait()
	defer wg.Wait()
	timer := time.NewTimer(s.p.DrainGrace)
	defer timer.Stop()
	select {
	case <-whole:
		return nil
	case <-timer.C:
		s.grpc.Stop()
		return fmt.Errorf("drain grpc server: calls were cut after %s", s.p.DrainGrace)
	}
}
