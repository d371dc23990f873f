// Package catalog says which models exist, which pool serves each, and which
// backends a pool has. The producer and the worker read the same file, so that
// a task is never routed to a pool that nobody runs.
package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

// Catalog is the whole of it.
type Catalog struct {
	Models []Model `yaml:"models"`
	Pools  []Pool  `yaml:"pools"`
}

// Model is one model that tasks may name.
type Model struct {
	ID      string      `yaml:"id"`
	Pool    string      `yaml:"pool"`
	Kinds   []task.Kind `yaml:"kinds"`
	Created int64       `yaml:"created"`  // Unix seconds, for GET /v1/models
	OwnedBy string      `yaml:"owned_by"` // likewise; default "penstock"
}

// Serves reports whether the model does tasks of a kind.
func (m Model) Serves(k task.Kind) bool { return slices.Contains(m.Kinds, k) }

// Pool is a set of backends with one batching profile and one consumer group.
type Pool struct {
	Name     string    `yaml:"name"`
	Backends []Backend `yaml:"backends"`
	Batch    Batch     `yaml:"batch"`
	Route    string    `yaml:"route"` // least (default), round_robin, random, response_time
}

// Batch bounds the batches of a pool.
type Batch struct {
	MaxTasks  int           `yaml:"max_tasks"`  // default 32
	MaxTokens int           `yaml:"max_tokens"` // 0: no budget
	MaxDelay  time.Duration `yaml:"max_delay"`  // ceiling of waiting for company; default 100 ms
}

// Backend is one engine endpoint.
type Backend struct {
	Name        string        `yaml:"name"` // default: the URL's host
	URL         string        `yaml:"url"`  // openai+http(s)://, json+http(s)://, sim://; bare http(s) is openai
	Models      []string      `yaml:"models"`
	Concurrency int           `yaml:"concurrency"` // calls at once; default 8
	Streamed    bool          `yaml:"streamed"`    // openai: ask for every answer as a stream, see the configuration's page
	APIKey      config.Secret `yaml:"api_key"`
}

// Routes a pool may choose backends by.
const (
	RouteLeast        = "least"
	RouteRoundRobin   = "round_robin"
	RouteRandom       = "random"
	RouteResponseTime = "response_time"
)

// Load reads a catalog from a YAML file, fills in defaults and validates it.
func Load(path string) (*Catalog, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	c, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("catalog %s: %w", path, err)
	}
	return c, nil
}

// Parse is Load for bytes. Unknown fields are errors.
func Parse(raw []byte) (*Catalog, error) {
	var c Catalog
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	c.FillDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &c, nil
}

// FillDefaults sets what the operator left out.
func (c *Catalog) FillDefaults() {
	for i := range c.Models {
		m := &c.Models[i]
		if m.Pool == "" {
			m.Pool = "default"
		}
		if len(m.Kinds) == 0 {
			m.Kinds = []task.Kind{task.Chat, task.Completion}
		}
		if m.OwnedBy == "" {
			m.OwnedBy = "penstock"
		}
	}
	for i := range c.Pools {
		c.Pools[i].fillDefaults()
	}
}

func (p *Pool) fillDefaults() {
	if p.Name == "" {
		p.Name = "default"
	}
	if p.Route == "" {
		p.Route = RouteLeast
	}
	if p.Batch.MaxTasks == 0 {
		p.Batch.MaxTasks = 32
	}
	if p.Batch.MaxDelay == 0 {
		p.Batch.MaxDelay = 100 * time.Millisecond
	}
	for i := range p.Backends {
		b := &p.Backends[i]
		if b.Concurrency == 0 {
			b.Concurrency = 8
		}
		if b.Name == "" {
			if u, err := url.Parse(b.URL); err == nil {
				b.Name = u.Host
			}
			if b.Name == "" {
				b.Name = fmt.Sprintf("%s-%d", p.Name, i+1)
			}
		}
	}
}

// Validate returns every fault at once.
func (c *Catalog) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	pools := map[string]bool{}
	if len(c.Pools) == 0 {
		fault("pools: at least one is required")
	}
	for _, p := range c.Pools {
		if err := topic.CheckPool(p.Name); err != nil {
			errs = append(errs, fmt.Errorf("pools: %w", err))
		}
		if pools[p.Name] {
			fault("pools: %q is named twice", p.Name)
		}
		pools[p.Name] = true
		errs = append(errs, p.validate()...)
	}
	models := map[string]bool{}
	if len(c.Models) == 0 {
		fault("models: at least one is required")
	}
	for _, m := range c.Models {
		switch {
		case m.ID == "":
			fault("models: id is required")
		case models[m.ID]:
			fault("models: %q is named twice", m.ID)
		case !pools[m.Pool]:
			fault("models: %q names pool %q, which is not in pools", m.ID, m.Pool)
		}
		models[m.ID] = true
		for _, k := range m.Kinds {
			if k != task.Chat && k != task.Completion && k != task.Embedding {
				fault("models: %q has kind %q; known are chat, completion and embedding", m.ID, k)
			}
		}
	}
	return errors.Join(errs...)
}

func (p Pool) validate() []error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("pool %q: "+format, append([]any{p.Name}, args...)...))
	}
	if len(p.Backends) == 0 {
		fault("backends: at least one is required")
	}
	if !slices.Contains([]string{RouteLeast, RouteRoundRobin, RouteRandom, RouteResponseTime}, p.Route) {
		fault("route: %q is none of least, round_robin, random, response_time", p.Route)
	}
	if p.Batch.MaxTasks < 1 || p.Batch.MaxTokens < 0 || p.Batch.MaxDelay < 0 || p.Batch.MaxDelay > 10*time.Second {
		fault("batch: max_tasks must be at least 1, max_tokens not negative, max_delay 0 to 10s")
	}
	names := map[string]bool{}
	for _, b := range p.Backends {
		if b.URL == "" {
			fault("backend %q: url is required", b.Name)
		}
		if names[b.Name] {
			fault("backend %q is named twice", b.Name)
		}
		names[b.Name] = true
		if b.Concurrency < 1 {
			fault("backend %q: concurrency must be at least 1", b.Name)
		}
	}
	return errs
}

// Model returns the model of an id.
func (c *Catalog) Model(id string) (Model, bool) {
	for _, m := range c.Models {
		if m.ID == id {
			return m, true
		}
	}
	return Model{}, false
}

// PoolNames returns the pools in the order of the file.
func (c *Catalog) PoolNames() []string {
	out := make([]string, len(c.Pools))
	for i, p := range c.Pools {
		out[i] = p.Name
	}
	return out
}
