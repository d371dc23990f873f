package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// Goodput measures which share of open-loop arrivals is answered within a
// limit, and which share the oracle would have answered of the same arrivals.
type Goodput struct {
	System string // base URL of the ingress
	GPU    GPU
	Share  float64 // of the GPU's capacity that arrives
	Limit  time.Duration
	Length time.Duration
	Seed   uint64
}

// GoodputReport is what came out.
type GoodputReport struct {
	Arrivals     int
	Good, Oracle int // within the limit
	Rate         float64
	Result       Result
}

// Ratio is the goodput over the oracle's.
func (r GoodputReport) Ratio() float64 { return float64(r.Good) / float64(r.Oracle) }

// Run sends the arrivals, each a submit that waits for its result.
func (g Goodput) Run(ctx context.Context) (GoodputReport, error) {
	rate := g.Share * g.GPU.Capacity()
	p := newPoster(g.System)
	defer p.close()
	wait := map[string][]string{"Prefer": {"wait=30"}}
	do := func(ctx context.Context, _ int) error { return p.complete(ctx, wait) }
	// Two seconds that do not count: connections, and what the batcher learns.
	Load{Rate: rate / 2, Length: 2 * time.Second, Seed: g.Seed + 1}.Run(ctx, do)

	load := Load{Rate: rate, Length: g.Length, Seed: g.Seed}
	res := load.Run(ctx, do)
	arrivals := Poisson(rate, g.Length, g.Seed)
	out := GoodputReport{
		Arrivals: len(arrivals), Rate: rate, Result: res,
		Oracle: within(g.GPU.Oracle(arrivals), g.Limit), Good: countWithin(res, g.Limit),
	}
	return out, res.check("goodput")
}

// countWithin counts the good answers at or below a limit.
func countWithin(r Result, limit time.Duration) int {
	var n int64
	for _, bar := range r.Latency.Distribution() {
		if bar.To <= limit.Microseconds() {
			n += bar.Count
		}
	}
	return int(n)
}

// complete submits and demands the result in the same answer.
func (p *poster) complete(ctx context.Context, header map[string][]string) error {
	raw, err := p.post(ctx, header)
	if err != nil {
		return err
	}
	var env struct {
		Data api.Task `json:"data"`
	}
	if err := json.Unmarshal(raw, &env); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	if env.Data.Status != task.Succeeded {
		return fmt.Errorf("task %s is %s after the wait", env.Data.TaskID, env.Data.Status)
	}
	return nil
}
