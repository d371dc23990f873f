// Package progress shows how many of a known number of tasks have ended: a bar
// on a terminal, a line for every fifth of them elsewhere.
package progress

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/penstock/penstock/cmd/penstock/tty"
)

// Progress is one run of work. It is safe for concurrent use.
type Progress struct {
	total int
	began time.Time
	bars  *mpb.Progress // nil without a terminal
	bar   *mpb.Bar
	lines io.Writer

	mu   sync.Mutex // guards done
	done int
}

// New shows a run of so many tasks on w.
func New(w io.Writer, total int) *Progress {
	p := &Progress{total: total, began: time.Now(), lines: w}
	if !tty.Is(w) {
		return p
	}
	p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(48), mpb.WithRefreshRate(60*time.Millisecond))
	p.bar = p.bars.AddBar(int64(total),
		mpb.PrependDecorators(decor.Name("   "), decor.CountersNoUnit("%d / %d tasks")),
		mpb.AppendDecorators(decor.AverageSpeed(0, "%.0f tasks/s"), decor.Name("  "), decor.Elapsed(decor.ET_STYLE_GO)))
	return p
}

// Step counts one more ended task.
func (p *Progress) Step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.bar != nil {
		p.bar.Increment()
		return
	}
	if step := max(1, p.total/5); p.done%step == 0 || p.done == p.total {
		fmt.Fprintf(p.lines, "   %d / %d tasks  (%s)\n", p.done, p.total, time.Since(p.began).Round(time.Millisecond))
	}
}

// Close leaves the last state of the bar on the screen.
func (p *Progress) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar == nil {
		return
	}
	if p.done < p.total {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}
