package httpserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/penstock/penstock/internal/config"
)

// Config is what an operator sets on a server.
type Config struct {
	Listen         string        `koanf:"listen" usage:"address of the API"`
	AdminListen    string        `koanf:"admin_listen" usage:"address of metrics, pprof and health; empty: none"`
	TrustedProxies []string      `koanf:"trusted_proxies" usage:"networks (CIDR) whose forwarding headers are believed"`
	BodyLimit      config.Bytes  `koanf:"body_limit" usage:"largest request body, before and after decompression"`
	DrainDelay     time.Duration `koanf:"drain_delay" usage:"time between readiness off and the end of intake, for load balancers to notice"`
	DrainGrace     time.Duration `koanf:"drain_grace" usage:"time for requests in flight to finish"`
}

// DefaultConfig serves on loopback only.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:8080", BodyLimit: 8 << 20, DrainGrace: 30 * time.Second}
}

// Fixed limits. There is no write timeout: streams last for hours.
const (
	readHeaderTimeout = 5 * time.Second
	bodyTimeout       = 30 * time.Second // of ReadBody, from its first to its last byte
	idleTimeout       = 2 * time.Minute
	compressFrom      = 1 << 10 // bytes; smaller answers are sent as they are
	// maxHeaderBytes lets GET /v1/events name api.MaxWatched tasks in its query
	// (59 bytes each) and resume by a cursor of 8 KiB in a header.
	maxHeaderBytes = 80 << 10
)

// Validate joins every fault, named by its setting.
func (c Config) Validate() error {
	_, errProxies := c.proxies()
	errs := []error{address("listen", c.Listen), errProxies}
	if c.AdminListen != "" {
		errs = append(errs, address("admin_listen", c.AdminListen))
	}
	if c.BodyLimit <= 0 {
		errs = append(errs, errors.New("body_limit: must be positive"))
	}
	if c.DrainGrace < 0 || c.DrainDelay < 0 {
		errs = append(errs, errors.New("drain_grace, drain_delay: must not be negative"))
	}
	return errors.Join(errs...)
}

func address(setting, value string) error {
	if _, _, err := net.SplitHostPort(value); err != nil {
		return fmt.Errorf("%s: want host:port, got %q", setting, value)
	}
	return nil
}

func (c Config) proxies() ([]*net.IPNet, error) {
	var nets []*net.IPNet
	var errs []error
	for _, p := range c.TrustedProxies {
		if addr, err := netip.ParseAddr(p); err == nil {
			p = netip.PrefixFrom(addr, addr.BitLen()).String()
		}
		_, n, err := net.ParseCIDR(p)
		if err != nil {
			errs = append(errs, fmt.Errorf("trusted_proxies: want networks such as 10.0.0.0/8, got %q", p))
			continue
		}
		nets = append(nets, n)
	}
	return nets, errors.Join(errs...)
}
