package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Stack holds what a process has acquired and must give back, in order. The
// zero value is ready. Open functions push each thing as they acquire it and
// stop the stack if a later step fails, so that nothing half-built is left.
type Stack struct {
	mu    sync.Mutex
	steps []step
	done  chan struct{} // nil until the first Stop; closed once err is set
	err   error
}

type step struct {
	name string
	stop func(context.Context) error
}

// Push adds a step that Stop will run before all the earlier ones. Pushing on a
// stopped stack would leak the thing, so it panics: an error of the programmer.
func (s *Stack) Push(name string, stop func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil {
		panic("lifecycle: push of " + name + " on a stopped stack")
	}
	s.steps = append(s.steps, step{name, stop})
}

// PushClose adds a step that needs neither a context nor time.
func (s *Stack) PushClose(name string, closeFunc func() error) {
	s.Push(name, func(context.Context) error { return closeFunc() })
}

// Stop runs every step, the last pushed first, each once, whatever the others
// returned, and joins their errors with their names. All share ctx's deadline;
// a step that outlives it is its own author's fault. A second or concurrent
// call waits for the first and returns its error.
func (s *Stack) Stop(ctx context.Context) error {
	steps, first := s.take()
	if !first {
		<-s.done
		return s.err
	}
	defer close(s.done)
	var errs []error
	for _, st := range steps {
		if err := st.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", st.name, err))
		}
	}
	s.err = errors.Join(errs...)
	return s.err
}

// take closes the stack to pushes. The first caller gets the steps, the last
// pushed first.
func (s *Stack) take() (steps []step, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil {
		return nil, false
	}
	s.done = make(chan struct{})
	slices.Reverse(s.steps)
	return s.steps, true
}
