package moderation

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/penstock/penstock/internal/config"
)

// Config is what an operator sets about the filter.
type Config struct {
	URL         string        `koanf:"url" usage:"endpoint of the OpenAI moderations API that /v1/moderations asks, as https://filter/v1/moderations; empty: there is no such route"`
	Token       config.Secret `koanf:"token" usage:"bearer token for it"`
	Timeout     time.Duration `koanf:"timeout" usage:"time one answer may take"`
	Concurrency int           `koanf:"concurrency" usage:"calls at once; more are refused with 503"`
}

// DefaultConfig has no filter.
func DefaultConfig() Config { return Config{Timeout: 10 * time.Second, Concurrency: 32} }

const (
	longest = time.Minute
	most    = 10_000
)

// Validate returns every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, errors.New("url: must be an http or https URL without a user name"))
		}
	}
	if c.Timeout <= 0 || c.Timeout > longest {
		errs = append(errs, fmt.Errorf("timeout: must be above 0 and at most %s", longest))
	}
	if c.Concurrency < 1 || c.Concurrency > most {
		errs = append(errs, fmt.Errorf("concurrency: must be 1 to %d", most))
	}
	return errors.Join(errs...)
}
