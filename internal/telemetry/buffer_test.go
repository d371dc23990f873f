package telemetry_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/internal/telemetry"
)

// sink counts the writes it gets.
type sink struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	return s.text.Write(p)
}

func (s *sink) state() (lines, writes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), "\n"), s.writes
}

func TestABufferedLog(t *testing.T) {
	t.Run("gathers lines for a moment and writes them together, in order", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out sink
			log, flush, err := telemetry.DefaultLogConfig().OpenBuffered(&out)
			if err != nil {
				t.Fatal(err)
			}
			log.Info("one")
			log.With("part", "x").Info("two")
			if lines, _ := out.state(); lines != 0 {
				t.Errorf("%d lines are out at once", lines)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if lines, writes := out.state(); lines != 2 || writes != 1 {
				t.Errorf("%d lines in %d writes, want 2 in 1", lines, writes)
			}
			if text := out.text.String(); strings.Index(text, "one") > strings.Index(text, "two") {
				t.Errorf("out of order: %s", text)
			}
			log.Info("three")
			if err := flush(); err != nil {
				t.Fatal(err)
			}
			if lines, _ := out.state(); lines != 3 {
				t.Errorf("%d lines after the flush, want 3", lines)
			}
		})
	})
	t.Run("lets no warning wait, nor what came before it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out sink
			log, _, err := telemetry.DefaultLogConfig().OpenBuffered(&out)
			if err != nil {
				t.Fatal(err)
			}
			log.Info("before")
			log.Warn("bad news")
			if lines, writes := out.state(); lines != 2 || writes != 1 {
				t.Errorf("%d lines in %d writes, want 2 in 1", lines, writes)
			}
		})
	})
	t.Run("never holds more than its bound", func(t *testing.T) {
		var out sink
		log, _, err := telemetry.DefaultLogConfig().OpenBuffered(&out)
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			log.Info(strings.Repeat("x", 200))
		}
		if lines, _ := out.state(); lines < 500 {
			t.Errorf("%d of 1000 lines are out", lines)
		}
	})
}
