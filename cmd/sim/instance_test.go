package sim_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/redisclient"
)

// service is what runs in an instance.
type service struct {
	run   func(context.Context) error
	drain func() // what asks open streams to leave; nil: nothing
}

// instance is one process of the system: it can be stopped, killed and started
// again, and has an address of its own.
type instance struct {
	w     *world
	name  string
	port  int
	open  func(ctx context.Context, l *life) (service, error)
	kafka weather
	redis weather
	hooks weather // to receivers of webhooks

	mu  sync.Mutex
	now *life // nil: not running
}

// life is one run of an instance, from its start to its end.
type life struct {
	instance     *instance
	kafka, redis *link
	hooks        *link
	server       *httpserver.Server
	log          *slog.Logger
	reg          *prometheus.Registry
	ctx          context.Context
	cancel       context.CancelFunc
	killed       chan struct{}
	kill         func()
	done         chan struct{}
}

func (i *instance) url() string { return fmt.Sprintf("http://localhost:%d", i.port) }

func (i *instance) start() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.now != nil {
		return
	}
	l := &life{
		instance: i, kafka: &link{weather: &i.kafka}, redis: &link{weather: &i.redis}, hooks: &link{weather: &i.hooks},
		log: i.w.log.With("instance", i.name), done: make(chan struct{}), killed: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.kill = sync.OnceFunc(func() {
		close(l.killed)
		l.kafka.kill()
		l.redis.kill()
		l.hooks.kill()
		l.cancel()
	})
	i.now = l
	i.w.wg.Go(l.live)
}

// stop drains the instance and waits for its end.
func (i *instance) stop() {
	if l := i.leave(); l != nil {
		l.cancel()
		<-l.done
	}
}

// crash ends all that the instance says to the outside, at once.
func (i *instance) crash() {
	if l := i.leave(); l != nil {
		l.kill()
	}
}

func (i *instance) leave() *life {
	i.mu.Lock()
	defer i.mu.Unlock()
	l := i.now
	i.now = nil
	return l
}

// present returns the instance's life, or nil.
func (i *instance) present() *life {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now
}

// live runs the service, which is started again when it cannot begin or gives
// up, as any supervisor would.
func (l *life) live() {
	defer close(l.done)
	for l.ctx.Err() == nil {
		if err := l.once(); err != nil && l.ctx.Err() == nil {
			l.log.Warn("the process ended", "err", err)
		}
		select {
		case <-l.ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (l *life) once() error {
	l.reg = prometheus.NewRegistry()
	cfg := httpserver.DefaultConfig()
	l.server = httpserver.New(cfg, l.log, l.reg)
	s, err := l.instance.open(l.ctx, l)
	if err != nil {
		return err
	}
	running, end := context.WithCancel(context.WithoutCancel(l.ctx))
	defer end()
	failed := make(chan error, 1)
	go func() { defer end(); failed <- s.run(running) }()
	l.serve(running, s.drain)
	end()
	return <-failed
}

// serve answers until the life ends, and drains.
func (l *life) serve(running context.Context, drain func()) {
	ln, err := l.instance.w.net.Listen("tcp", fmt.Sprintf("localhost:%d", l.instance.port))
	if err != nil {
		l.log.Error("listen", "err", err)
		return
	}
	server := &http.Server{Handler: l.server.Echo(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(ln) })
	defer serving.Wait()
	defer server.Close()
	select {
	case <-l.killed:
		return
	case <-running.Done(): // it gave up
		return
	case <-l.ctx.Done():
	}
	select {
	case <-l.killed: // both at once
		return
	default:
	}
	if drain != nil {
		drain()
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), 5*time.Second)
	defer cancel()
	_ = server.Shutdown(grace) // what is left is cut by Close
}

func (l *life) kafkaConfig() kafkaclient.Config {
	c := kafkaclient.DefaultConfig()
	c.Brokers = l.instance.w.broker.Addrs()
	c.ClientID = l.instance.name
	c.Dial = l.kafka.over(l.instance.w.broker.Dial())
	return c
}

func (l *life) redisConfig() redisclient.Config {
	c := redisclient.DefaultConfig()
	c.Dialer = l.redis.over(l.instance.w.store.Dial)
	// Whoever waits for a connection takes a timer from a pool of the process,
	// where those of other bubbles lie: nobody may have to wait.
	c.PoolSize = 1 << 14
	return c
}
