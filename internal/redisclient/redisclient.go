// Package redisclient makes the only Redis clients of the project, so that
// timeouts, pool sizes and the spelling of addresses are decided once.
//
// Redis is a projection that can be rebuilt and is allowed to be slow or gone:
// a call fails fast, within about a second and one retry, and the caller
// carries on without.
package redisclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/penstock/penstock/internal/config"
)

// Config says where Redis is. The zero value is not valid: a URL is needed.
type Config struct {
	// URL names one server, a cluster or a sentinel; see parse.
	URL      config.Secret `koanf:"url" usage:"redis://host:port/db, rediss:// for TLS, h1:1,h2:2 for a cluster, redis+sentinel://h1:1,h2:2/master"`
	Username string        `koanf:"username" usage:"ACL user, if not in the URL"`
	Password config.Secret `koanf:"password" usage:"password, if not in the URL"`
	PoolSize int           `koanf:"pool_size" usage:"connections per server"`

	// Dialer replaces the network in tests.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error) `koanf:"-"`
}

// DefaultConfig is a local Redis.
func DefaultConfig() Config {
	return Config{URL: "redis://127.0.0.1:6379/0", PoolSize: 64}
}

const (
	ioTimeout   = time.Second // dial, read and write each; blocking commands extend their own read
	poolTimeout = time.Second // wait for a free connection
	maxRetries  = 1           // a second try covers a connection that the server closed
)

// New returns a client and connects to nothing: a server that is down shows at
// the first command. The URL's faults are returned, without its password.
func New(cfg Config) (redis.UniversalClient, error) {
	t, err := parse(cfg.URL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("redis url: %w", err)
	}
	redis.SetLogger(silent{})
	return redis.NewUniversalClient(t.options(cfg)), nil
}

// silent drops what the library would print to stderr by itself: every failure
// also comes back as an error, to whoever can say what it means.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// Open is New and a PING, so that a wrong address or password fails at start.
// It returns no client on error.
func Open(ctx context.Context, cfg Config) (redis.UniversalClient, error) {
	client, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("ping redis: %w", err), client.Close())
	}
	return client, nil
}

// options joins what the URL and the Config say with our limits.
func (t target) options(cfg Config) *redis.UniversalOptions {
	o := &redis.UniversalOptions{
		Addrs: t.addrs, DB: t.db, MasterName: t.master, IsClusterMode: t.cluster,
		Username: t.username, Password: t.password,
		Dialer:                cfg.Dialer,
		DialTimeout:           ioTimeout,
		ReadTimeout:           ioTimeout,
		WriteTimeout:          ioTimeout,
		PoolTimeout:           poolTimeout,
		PoolSize:              cfg.PoolSize,
		MaxRetries:            maxRetries,
		DialerRetries:         1,    // the pool's five dials of a dead server would take seconds
		ContextTimeoutEnabled: true, // a caller's shorter deadline wins
		DisableIdentity:       true, // one round trip less per connection
		// The server's hand-over notices are a feature of one vendor's cloud.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if cfg.Username != "" {
		o.Username = cfg.Username
	}
	if cfg.Password != "" {
		o.Password = cfg.Password.Reveal()
	}
	if t.tls {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return o
}
