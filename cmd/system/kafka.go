package system

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// KafkaParams say which cluster to run.
type KafkaParams struct {
	Dir      string            // for data and logs; must not exist or be empty
	Brokers  int               // 1 or 3; default 1
	Settings map[string]string // of every broker
	Links    *Links            // what the services reach the brokers through; nil: directly
}

// Kafka is a running cluster whose brokers are processes of ours. Each broker
// is a controller too.
type Kafka struct {
	Brokers []*Process
	Addrs   []string // of the brokers, around the links
}

// roles are the services that reach Kafka, by their listener's name and their
// link's.
var roles = []struct{ listener, link string }{
	{"PRODUCER", ProducerKafka}, {"WORKER", WorkerKafka}, {"RESULTSVC", ResultsKafka},
}

// StartKafka starts a new, empty cluster and waits until every broker serves.
// It needs scripts/kafka.sh of this repository, Java and, the first time, Maven.
func StartKafka(ctx context.Context, p KafkaParams) (_ *Kafka, err error) {
	p.Brokers = max(1, p.Brokers)
	script, err := script(ctx, "kafka.sh")
	if err != nil {
		return nil, err
	}
	listeners, err := p.prepare(ctx, script)
	if err != nil {
		return nil, err
	}
	k := &Kafka{}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.Close())
		}
	}()
	for i := range p.Brokers {
		addr := listeners[listener{i, "PLAINTEXT"}]
		for _, r := range roles {
			if p.Links != nil {
				p.Links.Of(r.link)[i].Target(listeners[listener{i, r.listener}])
			}
		}
		b, err := start(spec{
			name: fmt.Sprintf("broker-%d", i), path: script, args: []string{"run", fmt.Sprint(i), "--dir", p.Dir},
			url: addr, log: filepath.Join(p.Dir, fmt.Sprintf("broker-%d.log", i)), probe: connects(addr),
		})
		if err != nil {
			return nil, err
		}
		k.Brokers, k.Addrs = append(k.Brokers, b), append(k.Addrs, addr)
	}
	for _, b := range k.Brokers {
		if err := b.ready(ctx); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// listener names one of a broker's.
type listener struct {
	broker int
	name   string
}

// prepare writes settings and data directories, and returns where each
// listener is.
func (p KafkaParams) prepare(ctx context.Context, script string) (map[listener]string, error) {
	args := []string{"prepare", "--dir", p.Dir, "--brokers", fmt.Sprint(p.Brokers)}
	for _, key := range slices.Sorted(maps.Keys(p.Settings)) {
		args = append(args, "--set", key+"="+p.Settings[key])
	}
	if p.Links != nil {
		for _, r := range roles {
			var via []string
			for range p.Brokers {
				addr, err := p.Links.through(r.link, "")
				if err != nil {
					return nil, err
				}
				via = append(via, addr)
			}
			args = append(args, "--via", r.listener+"="+strings.Join(via, ","))
		}
	}
	out, err := exec.CommandContext(ctx, script, args...).Output()
	if err != nil {
		exit, _ := errors.AsType[*exec.ExitError](err)
		return nil, fmt.Errorf("prepare kafka: %w\n%s", err, stderr(exit))
	}
	return parseListeners(string(out))
}

func stderr(exit *exec.ExitError) []byte {
	if exit == nil {
		return nil
	}
	return exit.Stderr
}

// parseListeners reads lines of broker, listener and address.
func parseListeners(text string) (map[listener]string, error) {
	out := map[listener]string{}
	for line := range strings.Lines(text) {
		var (
			l    listener
			addr string
		)
		if _, err := fmt.Sscan(line, &l.broker, &l.name, &addr); err != nil {
			return nil, fmt.Errorf("read listener %q: %w", line, err)
		}
		out[l] = addr
	}
	return out, nil
}

// Close kills every broker. The data stays for whoever wants to look at it.
func (k *Kafka) Close() error { return killAll(k.Brokers) }

func killAll(list []*Process) error {
	var errs []error
	for _, p := range list {
		errs = append(errs, p.Kill9())
	}
	return errors.Join(errs...)
}

// connects is the probe of a server that opens its port once it serves.
func connects(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// script is the path of one of the repository's scripts.
func script(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	path := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "scripts", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find the repository's scripts: %w", err)
	}
	return path, nil
}
