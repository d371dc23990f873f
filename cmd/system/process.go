// Package system runs Penstock as it runs in production, each service a
// process of its own, on free ports of this machine and against a real Kafka
// and Redis. The benchmark, the demo on a real model and the end-to-end tests
// use it: what they kill, drain and measure are real processes.
package system

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// drainGrace is how long a stopped process may take before it is killed.
	drainGrace = 45 * time.Second
	// startGrace is how long a process may take until it is ready.
	startGrace = 30 * time.Second
)

// Process is one running child. Its output goes to a file.
type Process struct {
	Name string
	URL  string // base of its main listener
	Log  string // path of its output

	spec spec
	cmd  *exec.Cmd
	done chan struct{} // closed once it has been reaped
	exit *error        // of Wait; read after done
}

// spec says what to start.
type spec struct {
	name string
	path string
	args []string
	env  []string
	url  string
	log  string
}

// start runs a process. It does not end with any context: whoever started it
// stops it.
func start(s spec) (*Process, error) {
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", s.name, err)
	}
	defer out.Close() // the child has its own copy
	cmd := exec.Command(s.path, s.args...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = out, out
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	p := &Process{Name: s.name, URL: s.url, Log: s.log, spec: s, cmd: cmd, done: make(chan struct{}), exit: new(error)}
	done, exit := p.done, p.exit // p may be overwritten, see Replace
	go func() {                  // ends with the child; awaited through done
		*exit = cmd.Wait()
		close(done)
	}()
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Alive reports whether the process still runs.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process as the kernel does when memory is short: at once, with
// nothing put in order.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-p.done
	return nil
}

// Stop asks the process to drain (SIGTERM) and waits for its end. One that
// takes longer than its grace is killed, which is an error, as is a non-zero
// exit.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	timer := time.NewTimer(drainGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		return errors.Join(fmt.Errorf("stop %s: not drained within %s, killed", p.Name, drainGrace), p.Kill())
	}
	if *p.exit != nil {
		return fmt.Errorf("stop %s: %w; see %s", p.Name, *p.exit, p.Log)
	}
	return nil
}

// ready waits until a URL of the process answers 2xx.
func (p *Process) ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startGrace,
		fmt.Errorf("%s is not ready within %s; see %s", p.Name, startGrace, p.Log))
	defer cancel()
	for {
		if probe(ctx, url) == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w; see %s", p.Name, errors.Join(*p.exit), p.Log)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
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

// freeAddr returns an address of this machine that nobody listens on. Another
// process may take it before ours does; then ours ends at once and says so.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
