// Package system runs Penstock as it runs in production, each service a
// process of its own, on free ports of this machine and against a real Kafka
// and Redis. The benchmark, the demo on a real model and the end-to-end tests
// use it: what they kill, drain and measure are real processes.
package system

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	// drainGrace is how long a stopped process may take before it is killed.
	drainGrace = 45 * time.Second
	// startGrace is how long a process may take until it is ready.
	startGrace = 2 * time.Minute
)

// Process is one child: it may end and be started anew at its old address. It
// is safe for concurrent use.
type Process struct {
	Name string
	URL  string // base of its main listener
	Log  string // path of its output

	spec spec

	mu  sync.Mutex // guards run
	run *run
}

// run is one life of a process.
type run struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it has been reaped
	exit error         // of Wait; read after done
}

// spec says what to start.
type spec struct {
	name  string
	path  string
	args  []string
	env   []string
	url   string
	log   string
	probe func(context.Context) error // nil error: it serves
}

// start runs a process. It does not end with any context: whoever started it
// stops it.
func start(s spec) (*Process, error) {
	p := &Process{Name: s.name, URL: s.url, Log: s.log, spec: s}
	return p, p.Start()
}

// Start starts the process, at its old address if it ran before, and does not
// wait until it is ready. It is an error while the process runs.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil && p.run.alive() {
		return fmt.Errorf("start %s: it still runs", p.Name)
	}
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.Name, err)
	}
	defer out.Close() // the child has its own copy
	cmd := exec.Command(p.spec.path, p.spec.args...)
	cmd.Env = append(os.Environ(), p.spec.env...)
	cmd.Stdout, cmd.Stderr = out, out
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	r := &run{cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the child; awaited through done
		r.exit = cmd.Wait()
		close(r.done)
	}()
	p.run = r
	return nil
}

// life is the latest run.
func (p *Process) life() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// PID is the process's id; a restart changes it.
func (p *Process) PID() int { return p.life().cmd.Process.Pid }

// Alive reports whether the process still runs; a stopped one does.
func (p *Process) Alive() bool { return p.life().alive() }

func (r *run) alive() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// signal does nothing to a process that has ended.
func (p *Process) signal(s os.Signal) error {
	if err := p.life().cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// Kill9 ends the process as the kernel does when memory is short: at once, with
// nothing put in order.
func (p *Process) Kill9() error {
	if err := p.signal(os.Kill); err != nil {
		return err
	}
	<-p.life().done
	return nil
}

// Stop freezes the process (SIGSTOP): it keeps its connections and answers
// nothing, as in a long collection of garbage or a paused machine. Cont lets it
// go on.
func (p *Process) Stop() error { return p.signal(sigStop) }

// Cont lets a stopped process go on (SIGCONT); it does not know that it slept.
func (p *Process) Cont() error { return p.signal(sigCont) }

// Term asks the process to drain (SIGTERM) and waits for its end. One that
// takes longer than its grace is killed, which is an error, as is a non-zero
// exit.
func (p *Process) Term() error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(drainGrace)
	defer timer.Stop()
	life := p.life()
	select {
	case <-life.done:
	case <-timer.C:
		return errors.Join(fmt.Errorf("stop %s: not drained within %s, killed", p.Name, drainGrace), p.Kill9())
	}
	if life.exit != nil {
		return fmt.Errorf("stop %s: %w; see %s", p.Name, life.exit, p.Log)
	}
	return nil
}

// Restart starts a process that has ended anew, at the same address and with
// the same settings, and waits until it is ready.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Start(); err != nil {
		return err
	}
	return p.ready(ctx)
}

// Probe asks once whether the process serves.
func (p *Process) Probe(ctx context.Context) error { return p.spec.probe(ctx) }

// ready waits until the process serves.
func (p *Process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startGrace,
		fmt.Errorf("%s is not ready within %s; see %s", p.Name, startGrace, p.Log))
	defer cancel()
	life := p.life()
	for {
		if p.spec.probe(ctx) == nil {
			return nil
		}
		select {
		case <-life.done:
			return fmt.Errorf("%s ended before it was ready: %w; see %s", p.Name, errors.Join(life.exit), p.Log)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// answers is the probe of an HTTP service: the URL answers 2xx.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error { return probe(ctx, url) }
}

func probe(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	return nil
}

// freeAddr returns an address of this machine that nobody listens on, below
// the range from which the kernel takes ports for outgoing connections: a
// process that is restarted finds its port free. Another process may take it
// before ours does; then ours ends at once and says so.
func freeAddr() (string, error) {
	const low, high, tries = 20_000, 30_000, 100
	var err error
	for range tries {
		addr := fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low))
		var ln net.Listener
		if ln, err = net.Listen("tcp", addr); err == nil {
			return addr, ln.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
