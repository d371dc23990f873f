package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// flushEvery is the longest a line waits, and so what a killed process
	// loses of its log, warnings and errors excepted.
	flushEvery = 100 * time.Millisecond
	// flushBytes is how much is gathered at most.
	flushBytes = 64 << 10
)

// OpenBuffered is Open for a process that writes a line per request: one write
// a line costs a sixth of the processor time that accepting a task does. Lines
// are gathered for up to 100 ms; a warning or an error is written at once, with
// all that came before it. Call flush at the end.
func (c LogConfig) OpenBuffered(w io.Writer) (log *slog.Logger, flush func() error, err error) {
	b := &buffer{w: w}
	inner, err := c.Open(b)
	if err != nil {
		return nil, nil, err
	}
	return slog.New(flushing{inner.Handler(), b}), b.flush, nil
}

// flushing is a handler that lets nothing of importance wait.
type flushing struct {
	slog.Handler
	buffer *buffer
}

// Handle implements slog.Handler.
func (f flushing) Handle(ctx context.Context, r slog.Record) error {
	err := f.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		if flushErr := f.buffer.flush(); err == nil {
			err = flushErr
		}
	}
	return err
}

// WithAttrs implements slog.Handler.
func (f flushing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return flushing{f.Handler.WithAttrs(attrs), f.buffer}
}

// WithGroup implements slog.Handler.
func (f flushing) WithGroup(name string) slog.Handler {
	return flushing{f.Handler.WithGroup(name), f.buffer}
}

// buffer gathers lines and writes them together.
type buffer struct {
	w io.Writer

	mu    sync.Mutex // guards what follows, and keeps writes in order
	lines []byte
	timer *time.Timer // runs while lines wait
}

// Write takes one line; slog writes each with one call.
func (b *buffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line...)
	if len(b.lines) >= flushBytes {
		return len(line), b.write()
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(flushEvery, func() { _ = b.flush() }) // nobody is left to tell
	}
	return len(line), nil
}

func (b *buffer) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.write()
}

func (b *buffer) write() error {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	if len(b.lines) == 0 {
		return nil
	}
	_, err := b.w.Write(b.lines)
	b.lines = b.lines[:0]
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}
