package lifecycle_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/internal/lifecycle"
)

func TestStack(t *testing.T) {
	t.Parallel()
	t.Run("stops the last pushed first and names every failure", func(t *testing.T) {
		t.Parallel()
		var s lifecycle.Stack
		var order []string
		boom := errors.New("boom")
		for _, name := range []string{"kafka", "redis", "listener"} {
			s.Push(name, func(context.Context) error {
				order = append(order, name)
				if name == "redis" {
					return nil
				}
				return boom
			})
		}
		err := s.Stop(t.Context())
		if want := []string{"listener", "redis", "kafka"}; !slices.Equal(order, want) {
			t.Errorf("stopped in order %v, want %v", order, want)
		}
		if !errors.Is(err, boom) || !strings.Contains(err.Error(), "stop listener: boom") || !strings.Contains(err.Error(), "stop kafka: boom") {
			t.Errorf("error %v does not name both failing steps", err)
		}
	})
	t.Run("runs each step once and lets a second caller wait for the first", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var s lifecycle.Stack
			runs := 0
			s.Push("slow", func(context.Context) error { time.Sleep(time.Second); runs++; return errors.New("late") })
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if err := s.Stop(t.Context()); err == nil || runs != 1 {
						t.Errorf("Stop returned %v after %d runs, want the first call's error after one", err, runs)
					}
				})
			}
			wg.Wait()
		})
	})
	t.Run("an empty stack stops without an error", func(t *testing.T) {
		t.Parallel()
		var s lifecycle.Stack
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("refuses a push after the stop", func(t *testing.T) {
		t.Parallel()
		var s lifecycle.Stack
		_ = s.Stop(t.Context())
		defer func() {
			if recover() == nil {
				t.Error("a push on a stopped stack was accepted, its thing would leak")
			}
		}()
		s.PushClose("late", func() error { return nil })
	})
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	t.Run("is ready when nothing is waited for", func(t *testing.T) {
		t.Parallel()
		var r lifecycle.Readiness
		if err := r.Err(); err != nil {
			t.Error(err)
		}
	})
	t.Run("names every failing check in order", func(t *testing.T) {
		t.Parallel()
		var r lifecycle.Readiness
		r.Set("redis", errors.New("refused"))
		r.Set("kafka", errors.New("no brokers"))
		r.Set("disk", nil)
		if got, want := r.Err().Error(), "kafka: no brokers\nredis: refused"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		r.Set("redis", nil)
		r.Set("kafka", nil)
		if err := r.Err(); err != nil {
			t.Error(err)
		}
	})
	t.Run("stays started when a check fails later, and off once draining", func(t *testing.T) {
		t.Parallel()
		var r lifecycle.Readiness
		r.Set("kafka", errors.New("connecting"))
		if r.Started() == nil {
			t.Error("started before the first check was good")
		}
		r.Set("kafka", nil)
		if err := r.Started(); err != nil {
			t.Error(err)
		}
		r.Set("kafka", errors.New("lost"))
		if err := r.Started(); err != nil {
			t.Errorf("startup went back: %v", err)
		}
		r.Set("kafka", nil)
		r.Drain()
		if err := r.Err(); !errors.Is(err, lifecycle.ErrDraining) {
			t.Errorf("got %v, want ErrDraining", err)
		}
	})
}
