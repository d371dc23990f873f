package demo

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress shows how many of a known number of tasks have ended: a bar on a
// terminal, a line for every fifth of them elsewhere.
type progress struct {
	total, done int
	began       time.Time
	bars        *mpb.Progress // nil without a terminal
	bar         *mpb.Bar
	lines       io.Writer
}

func newProgress(w io.Writer, terminal bool, total int) *progress {
	p := &progress{total: total, began: time.Now(), lines: w}
	if !terminal {
		return p
	}
	p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(48), mpb.WithRefreshRate(60*time.Millisecond))
	p.bar = p.bars.AddBar(int64(total),
		mpb.PrependDecorators(decor.Name("   "), decor.CountersNoUnit("%d / %d tasks")),
		mpb.AppendDecorators(decor.AverageSpeed(0, "%.0f tasks/s"), decor.Name("  "), decor.Elapsed(decor.ET_STYLE_GO)))
	return p
}

// step counts one more ended task.
func (p *progress) step() {
	p.done++
	if p.bar != nil {
		p.bar.Increment()
		return
	}
	if step := max(1, p.total/5); p.done%step == 0 || p.done == p.total {
		fmt.Fprintf(p.lines, "   %d / %d tasks  (%s)\n", p.done, p.total, time.Since(p.began).Round(time.Millisecond))
	}
}

// close leaves the last state of the bar on the screen.
func (p *progress) close() {
	if p.bar == nil {
		return
	}
	if p.done < p.total {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}
