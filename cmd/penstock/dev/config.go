// Package dev is the whole of Penstock in one process: ingress, worker and
// results service as they run in production, on Kafka and Redis inside the
// process and a simulated engine, each of which a flag swaps for a real one.
//
// It is not for production: one process, one replica, no keys on loopback.
package dev

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/idsecret"
)

// Config is what the user chooses.
type Config struct {
	Listen  string // the one address of every route
	GRPC    string // address of the gRPC API; empty: beside the API; none: off
	DataDir string // keeps Kafka's log across restarts; empty: memory
	Kafka   string // bootstrap addresses of a real Kafka, comma separated; empty: inside the process
	Redis   string // URL of a real Redis; empty: inside the process
	Backend string // URL of a real engine; empty: a simulated one
	Blobs   string // URL of a blob store; empty: a directory beside the log, none with a real Kafka

	AuthKeysFile string        // API keys; needed to listen beyond loopback
	IDSecret     config.Secret // signs task ids; needed to listen beyond loopback

	// RetryBase and RetryMax are the first and the longest wait between two
	// tries of a task.
	RetryBase, RetryMax time.Duration
}

// DefaultConfig listens on loopback and swaps nothing.
func DefaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:8080", IDSecret: idsecret.Dev,
		RetryBase: time.Second, RetryMax: 8 * time.Second,
	}
}

// Validate returns every fault at once, by the name the user typed.
func (c Config) Validate() error {
	var errs []error
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen %q: want host:port", c.Listen))
	}
	if c.DataDir != "" && c.Kafka != "" {
		errs = append(errs, errors.New("--data-dir is for the Kafka inside the process: leave it out with --kafka"))
	}
	if c.GRPC != "" && c.GRPC != grpcOff {
		if _, _, err := net.SplitHostPort(c.GRPC); err != nil {
			errs = append(errs, fmt.Errorf("--grpc-listen %q: want host:port, or none", c.GRPC))
		}
	}
	if c.Backend != "" {
		if u, err := url.Parse(c.Backend); err != nil || u.Host == "" {
			errs = append(errs, fmt.Errorf("--backend %q: want a URL such as http://127.0.0.1:8000", c.Backend))
		}
	}
	if err := c.blobConfig("").Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--blobs: %w", err))
	}
	return errors.Join(errs...)
}

// grpcOff is the word for no gRPC API.
const grpcOff = "none"

// grpcListen is where the gRPC API listens: where the user says, else beside
// the API. That is port 9090 beside port 8080, and a free one beside others, so
// that several processes need no flags.
func (c Config) grpcListen() string {
	switch c.GRPC {
	case grpcOff:
		return ""
	case "":
	default:
		return c.GRPC
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "" // Validate says so
	}
	if port == "8080" {
		return net.JoinHostPort(host, "9090")
	}
	return net.JoinHostPort(host, "0")
}

// blobConfig is the store of large payloads and results. Dir is where it may
// lie by default; other processes on a real Kafka could not read it there.
func (c Config) blobConfig(dir string) blob.Config {
	out := blob.DefaultConfig()
	switch {
	case c.Blobs != "":
		out.URL = c.Blobs
	case c.Kafka == "" && dir != "":
		out.URL = (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String()
	}
	return out
}

const (
	// resultTTL is how long results can be read. The store inside the process
	// keeps everything in memory.
	resultTTL = time.Hour
	// memoryRetention bounds a log in memory; maxTaskAge is half of it, as the
	// topics demand.
	memoryRetention = 6 * time.Hour
	diskRetention   = 72 * time.Hour
)

// retention is how long the topics keep tasks and results.
func (c Config) retention() time.Duration {
	if c.DataDir == "" && c.Kafka == "" {
		return memoryRetention
	}
	return diskRetention
}
