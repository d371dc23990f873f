// Package rules routes a message that names no model: YAML data, CEL
// expressions over the message, first match wins.
//
//	rules:
//	  - name: invoices
//	    when: source == "web" && text_lower.contains("invoice")
//	    model: finance-chat
//	  - name: canary
//	    when: tenant == "acme" && length < 4000
//	    models:
//	      - {model: chat-v1, weight: 95}
//	      - {model: chat-v2, weight: 5}
//	default: chat-v1
//
// An expression sees source, tenant, session_id, text, text_lower, length
// (characters of the text), context (any JSON) and labels. text is what the
// message says, without its roles, and at most MaxText bytes of it; length
// counts all of it.
//
// Guarantee: one task id always takes the same way through the same rules, so a
// repeat of a message meets the model it met first. An expression that fails or
// costs too much does not match; failures are counted per rule.
package rules

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"cel.dev/cel-go/cel"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/schema/task"
)

// Config is the file of rules.
type Config struct {
	Rules   []Rule `yaml:"rules"`
	Default string `yaml:"default"` // model when no rule matches; empty: the caller must name one
}

// Rule sends the messages that match When to Model, or to one of Models by
// weight.
type Rule struct {
	Name   string   `yaml:"name"`
	When   string   `yaml:"when"`
	Model  string   `yaml:"model"`
	Models []Target `yaml:"models"`
}

// Target is one of several models that share the messages of a rule.
type Target struct {
	Model  string `yaml:"model"`
	Weight int    `yaml:"weight"` // relative, at least 0
}

// CatchAll returns rules that send everything to one model.
func CatchAll(model string) Config { return Config{Default: model} }

// Load reads a file of rules. Unknown fields are errors.
func Load(path string) (Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read rules: %w", err)
	}
	var c Config
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("rules %s: %w", path, err)
	}
	return c, nil
}

// Set is compiled rules. It is safe for concurrent use.
type Set struct {
	rules    []compiled
	fallback string
	failures *prometheus.CounterVec
}

type compiled struct {
	name    string
	program cel.Program
	targets []Target
	total   uint64 // of the weights
}

// Compile checks every rule and returns all faults at once, each under the
// name of its rule. known says which models exist.
func Compile(c Config, known func(model string) bool, reg prometheus.Registerer) (*Set, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	set := &Set{fallback: c.Default, failures: newFailures(reg)}
	var errs []error
	names := map[string]bool{}
	for i, r := range c.Rules {
		if r.Name == "" {
			r.Name = fmt.Sprintf("#%d", i+1)
		}
		if names[r.Name] {
			errs = append(errs, fmt.Errorf("rule %q: the name is used twice", r.Name))
		}
		names[r.Name] = true
		one, err := compile(env, r, known)
		if err != nil {
			errs = append(errs, fmt.Errorf("rule %q: %w", r.Name, err))
			continue
		}
		set.rules = append(set.rules, one)
		set.failures.WithLabelValues(r.Name)
	}
	if c.Default != "" && !known(c.Default) {
		errs = append(errs, fmt.Errorf("default: model %q does not exist", c.Default))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return set, nil
}

func compile(env *cel.Env, r Rule, known func(string) bool) (compiled, error) {
	out := compiled{name: r.Name, targets: r.Models}
	if r.Model != "" {
		if len(r.Models) > 0 {
			return out, errors.New("give model or models, not both")
		}
		out.targets = []Target{{Model: r.Model, Weight: 1}}
	}
	for _, t := range out.targets {
		if !known(t.Model) {
			return out, fmt.Errorf("model %q does not exist", t.Model)
		}
		if t.Weight < 0 {
			return out, fmt.Errorf("weight of %q is negative", t.Model)
		}
		out.total += uint64(t.Weight)
	}
	if out.total == 0 {
		return out, errors.New("model, or models with a weight above 0, are required")
	}
	var err error
	out.program, err = program(env, r.When)
	return out, err
}

// Route returns the model for a message, and false when neither a rule nor a
// default finds one.
func (s *Set) Route(id task.ID, m Message) (model string, ok bool) {
	vars := &variables{m: m}
	for i := range s.rules {
		r := &s.rules[i]
		match, err := r.match(vars)
		if err != nil {
			s.failures.WithLabelValues(r.name).Inc()
			continue
		}
		if match {
			return r.pick(id), true
		}
	}
	return s.fallback, s.fallback != ""
}

// pick spreads ids over the targets by weight. It hashes the id, so that a
// repeat goes where the first went.
func (r *compiled) pick(id task.ID) string {
	h := fnv.New64a()
	_, _ = io.WriteString(h, string(id)) // a hash's Write never fails
	point := mix(h.Sum64()) % r.total
	for _, t := range r.targets {
		if point < uint64(t.Weight) {
			return t.Model
		}
		point -= uint64(t.Weight)
	}
	return r.targets[len(r.targets)-1].Model
}

// mix spreads the low bits, which FNV leaves related for similar texts.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h ^ h>>33
}
