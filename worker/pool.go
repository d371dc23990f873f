package worker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/telemetry"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/batch"
	"github.com/penstock/penstock/worker/consume"
	"github.com/penstock/penstock/worker/dispatch"
	"github.com/penstock/penstock/worker/route"
)

// pool is one pool of the catalog at work: its lanes in one consumer group, one
// loop, its backends.
type pool struct {
	name   string
	log    *slog.Logger
	group  *consume.Group
	loop   *dispatch.Loop
	router *route.Router
	close  func(context.Context) error // once
}

// heldMargin is what a try may take beyond its timeout to be seen as ended.
const heldMargin = 5 * time.Second

// poolParts are what all pools of a worker share.
type poolParts struct {
	runner *attempt.Runner
	pub    *tasktopic.Publisher
	claims *claimcheck.Desk
}

func openPool(cfg Config, p catalog.Pool, d Deps, shared poolParts) (*pool, error) {
	router, healthy, err := openRouter(p, d)
	if err != nil {
		return nil, err
	}
	o := &pool{name: p.Name, log: d.Log.With("pool", p.Name), router: router}
	o.loop, err = dispatch.New(dispatch.Params{
		Pool: p.Name, Runner: shared.runner, Router: router, Publisher: shared.pub, Results: shared.claims, Log: d.Log, Metrics: d.Registry,
		Batch:  batch.Policy{MaxTasks: p.Batch.MaxTasks, MaxTokens: p.Batch.MaxTokens, MaxDelay: p.Batch.MaxDelay},
		Worker: cfg.Name, Build: telemetry.ReadBuild().Version, Group: topic.WorkerGroup(p.Name),
		BackoffFunc: cfg.backoff().Wait, HealthyFunc: healthy, DrainGrace: cfg.DrainGrace,
		HeldLimit:   cfg.AttemptTimeout + heldMargin,
		BlockedFunc: func() []*consume.Delivery { return o.group.Blocked() },
	})
	if err != nil {
		return nil, err
	}
	var lanes []string
	for _, c := range task.Classes() {
		lanes = append(lanes, topic.Tasks(p.Name, c))
	}
	o.group, err = consume.Open(cfg.Kafka, consume.Params{
		Group: topic.WorkerGroup(p.Name), Topics: lanes,
		MaxRecords: cfg.InFlightRecords, MaxBytes: int64(cfg.InFlightBytes), CommitInterval: cfg.CommitInterval,
	}, o.loop, d.Log, d.Registry)
	if err != nil {
		return nil, err
	}
	var once sync.Once
	var closed error
	o.close = func(ctx context.Context) error {
		once.Do(func() { closed = o.group.Close(ctx) })
		return closed
	}
	return o, nil
}

func openRouter(p catalog.Pool, d Deps) (_ *route.Router, healthy func(string) bool, err error) {
	members := make([]route.Member, len(p.Backends))
	probed := map[string]bool{}
	for i, b := range p.Backends {
		made, err := d.BackendFunc(p, b)
		if err != nil {
			return nil, nil, err
		}
		_, probed[b.Name] = made.(backend.Prober)
		members[i] = route.Member{Name: b.Name, Backend: made, Models: b.Models, Concurrency: b.Concurrency}
	}
	router, err := route.New(route.Params{
		Pool: p.Name, Strategy: route.Strategy(p.Route), Members: members, Log: d.Log, Metrics: d.Registry,
	})
	if err != nil {
		return nil, nil, err
	}
	return router, func(name string) bool {
		if !probed[name] {
			return false
		}
		for _, s := range router.List() {
			if s.Name == name {
				return s.Healthy
			}
		}
		return false
	}, nil
}

// closeGrace bounds the last commit and the leaving of the group.
const closeGrace = 5 * time.Second

// run works until ctx is done and drains. Heartbeats and commits go on until
// the drain is over, so that nobody else starts what still runs here.
func (p *pool) run(ctx context.Context) error {
	intake, stopIntake := context.WithCancel(ctx)
	defer stopIntake()
	rest, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	var polls, others sync.WaitGroup
	var pollErr error
	polls.Go(func() {
		defer stopIntake() // a pool that cannot read drains too
		pollErr = p.group.Poll(intake)
	})
	others.Go(func() { p.group.CommitLoop(rest) })
	others.Go(func() { p.router.Run(rest) })
	p.loop.Run(intake)
	polls.Wait()
	stopRest()
	others.Wait()

	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err := p.close(end); err != nil {
		p.log.Warn("pool did not leave cleanly: some settled work is repeated", "err", err)
	}
	if pollErr != nil {
		return fmt.Errorf("pool %s: %w", p.name, pollErr)
	}
	return nil
}
