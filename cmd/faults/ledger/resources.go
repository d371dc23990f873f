package ledger

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/system"
)

// Part is one process that is watched for leaks.
type Part struct {
	Name  string
	Admin string // base URL of its metrics
	PID   int
}

// Usage is what a process uses at a moment.
type Usage struct {
	// Goroutines, less those of HTTP connections to others that nobody uses just
	// now: a pool keeps as many as were needed at once, for a while.
	Goroutines int
	Resident   int64 // bytes
}

// Measure reads what a process uses. It needs /proc, and the process's profiles.
func Measure(ctx context.Context, p Part) (Usage, error) {
	cl, err := client.New(client.Config{API: p.Admin})
	if err != nil {
		return Usage{}, err
	}
	defer cl.Close()
	m, err := cl.Metrics(ctx, p.Admin)
	if err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w", p.Name, err)
	}
	rss, err := system.Resident(p.PID)
	if err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w", p.Name, err)
	}
	profile, err := profileOf(ctx, p)
	if err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w", p.Name, err)
	}
	return Usage{Goroutines: int(m.Sum("go_goroutines")) - 2*idleConnections(profile), Resident: rss}, nil
}

// maxProfile bounds what is read of a profile.
const maxProfile = 64 << 20

// profileOf reads what every goroutine does.
func profileOf(ctx context.Context, p Part) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Admin+"/debug/pprof/goroutine?debug=1", nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the profile is answered %s", res.Status)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxProfile))
	return string(text), err
}

// idleConnections counts the connections of HTTP clients that wait for use: the
// goroutine that reads them waits for a first byte. Each has another that
// writes. One whose answer nobody reads is not idle, and so is found.
func idleConnections(profile string) int {
	sum := 0
	for block := range strings.SplitSeq(profile, "\n\n") {
		if !strings.Contains(block, "net/http.(*persistConn).readLoop") || !strings.Contains(block, "bufio.(*Reader).Peek") {
			continue
		}
		for line := range strings.Lines(block) {
			if count, _, ok := strings.Cut(line, " @ "); ok {
				n, _ := strconv.Atoi(count) // a profile that cannot be read has no idle ones
				sum += n
			}
		}
	}
	return sum
}

// Settle is how long a drained system may take to be as it was before.
const Settle = 30 * time.Second

// Spare is how many goroutines more than at the start are no leak.
const Spare = 5

// Leaks waits until every part is back at its baseline, or Settle is over, and
// notes those that are not. A process that was started anew has no baseline and
// is measured against its own limit of memory only. Limit is in bytes.
func Leaks(ctx context.Context, b *Book, parts []Part, base map[int]Usage, limit int64) error {
	over, cancel := context.WithTimeout(ctx, Settle)
	defer cancel()
	for {
		late, err := leaking(ctx, parts, base, limit)
		if err != nil {
			return err
		}
		if len(late) == 0 {
			return nil
		}
		if wait(over, retryMost/5) == nil {
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the baseline: %w", context.Cause(ctx))
		}
		b.leaked(late)
		return nil
	}
}

func (b *Book) leaked(late []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, what := range late {
		b.find("I8", "", what)
	}
}

func leaking(ctx context.Context, parts []Part, base map[int]Usage, limit int64) ([]string, error) {
	var out []string
	for _, p := range parts {
		u, err := Measure(ctx, p)
		if err != nil {
			return nil, err
		}
		if was, known := base[p.PID]; known && u.Goroutines > was.Goroutines+Spare {
			out = append(out, fmt.Sprintf("%s has %d goroutines, %d at the start", p.Name, u.Goroutines, was.Goroutines))
		}
		if u.Resident > limit {
			out = append(out, fmt.Sprintf("%s has %d MiB of memory, the limit is %d", p.Name, u.Resident>>20, limit>>20))
		}
	}
	return out, nil
}
