package system

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/redis/go-redis/v9"
)

// RedisParams say which server to run.
type RedisParams struct {
	Dir      string   // for data and logs
	Links    *Links   // what the services reach it through; nil: directly
	Settings []string // of the server, "--maxmemory", "64mb"
	Replica  bool     // with a second server that follows the first, see Promote
}

// Redis is a running server without persistence: killed and started again it
// is empty.
type Redis struct {
	*Process          // URL is its address, around the links
	Replica  *Process // nil without one

	links *Links
}

// StartRedis starts a server and waits until it answers. It needs
// scripts/redis.sh of this repository.
func StartRedis(ctx context.Context, p RedisParams) (_ *Redis, err error) {
	r := &Redis{links: p.Links}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.Process, err = p.start(ctx, "redis"); err != nil {
		return nil, err
	}
	if p.Links != nil {
		for _, link := range []string{ProducerRedis, WorkerRedis, ResultsRedis} {
			if _, err := p.Links.Add(link, r.addr()); err != nil {
				return nil, err
			}
		}
	}
	if p.Replica {
		return r, r.follow(ctx, p)
	}
	return r, nil
}

func (p RedisParams) start(ctx context.Context, name string) (*Process, error) {
	script, err := script(ctx, "redis.sh")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(p.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	_, port, _ := net.SplitHostPort(addr)
	url := "redis://" + addr + "/0"
	server, err := start(spec{
		name: name, path: script, args: append([]string{"run", dir, port}, p.Settings...),
		url: url, log: filepath.Join(p.Dir, name+".log"), probe: pings(url),
	})
	if err != nil {
		return nil, err
	}
	return server, server.ready(ctx)
}

// follow starts the replica. It reads from the first over a link of its own.
func (r *Redis) follow(ctx context.Context, p RedisParams) error {
	source, err := p.Links.through(RedisReplica, r.addr())
	if err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(source)
	p.Settings = append([]string{"--replicaof", host + " " + port, "--repl-diskless-sync-delay", "0"}, p.Settings...)
	r.Replica, err = p.start(ctx, "redis-replica")
	return err
}

// Promote makes the replica the server that the services reach, as a failover
// does: it becomes writable, and their links lead to it from now on. What it had
// not received is lost: hold the link RedisReplica first. The old server is
// killed.
func (r *Redis) Promote(ctx context.Context) error {
	if r.Replica == nil || r.links == nil {
		return errors.New("promote: there is no replica, or no link to turn to it")
	}
	if err := r.Kill9(); err != nil {
		return err
	}
	if err := withRedis(r.Replica.URL, func(cl *redis.Client) error { return cl.ReplicaOf(ctx, "NO", "ONE").Err() }); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	r.Replica.spec.args = leading(r.Replica.spec.args)
	r.Process, r.Replica = r.Replica, r.Process
	for _, link := range []string{ProducerRedis, WorkerRedis, ResultsRedis} {
		for _, p := range r.links.Of(link) {
			p.Target(r.addr())
			p.Reset()
		}
	}
	return nil
}

// leading is a server's arguments without whom it follows: started again, a
// promoted one must not follow the dead and refuse all writes. A failover
// rewrites its settings for the same reason.
func leading(args []string) []string {
	at := slices.Index(args, "--replicaof")
	if at < 0 {
		return args
	}
	return slices.Delete(slices.Clone(args), at, at+2)
}

// addr is host:port, around the links.
func (r *Redis) addr() string {
	opts, err := redis.ParseURL(r.URL)
	if err != nil {
		panic("system: a Redis URL of our own is none: " + err.Error())
	}
	return opts.Addr
}

// Close kills the server and its replica.
func (r *Redis) Close() error {
	var list []*Process
	for _, p := range []*Process{r.Process, r.Replica} {
		if p != nil {
			list = append(list, p)
		}
	}
	return killAll(list)
}

func pings(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		return withRedis(url, func(cl *redis.Client) error { return cl.Ping(ctx).Err() })
	}
}

func withRedis(url string, do func(*redis.Client) error) error {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	opts.MaxRetries = -1
	cl := redis.NewClient(opts)
	defer cl.Close()
	return do(cl)
}
