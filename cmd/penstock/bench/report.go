package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// row writes one line of a table.
func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 4, 2, ' ', 0) }

// table prints both sides, the turns and the ratio, and what each part spent on
// a call.
func (r AcceptReport) table(w io.Writer, parts []Part) error {
	t := newTable(w)
	row(t, "SIDE", "TASKS/S", "P50", "P90", "P99", "P99.9", "CALLS", "TURNS")
	r.System.row(t, "ingress", r.turns("system"))
	if r.Bare.Calls > 0 {
		r.Bare.row(t, "bare handler", r.turns("bare"))
		row(t, "median ratio", fmt.Sprintf("%.2f", r.Ratio()))
	}
	if len(parts) > 0 {
		row(t)
		row(t, "PART", "CPU µs/TASK, INGRESS", "BARE HANDLER")
	}
	for i, p := range parts {
		row(t, p.Name, perCall(r.CPU["system"], i, r.System), perCall(r.CPU["bare"], i, r.Bare))
	}
	return t.Flush()
}

// perCall is what a part used on a call, or "-" for a side that was not run.
func perCall(used []time.Duration, part int, r Result) string {
	if used == nil || r.Calls == 0 {
		return "-"
	}
	return fmt.Sprint((used[part] / time.Duration(r.Calls)).Microseconds())
}

func (r Result) row(w io.Writer, name, turns string) {
	row(w, name, fmt.Sprintf("%.0f", r.PerSecond()), short(r.Quantile(50)), short(r.Quantile(90)),
		short(r.Quantile(99)), short(r.Quantile(99.9)), r.Calls, turns)
}

func (r AcceptReport) turns(side string) string {
	out := ""
	for _, t := range r.Turns {
		if t.Side == side {
			out += fmt.Sprintf("%.0f ", t.PerSecond)
		}
	}
	return out
}

// table prints the rate and what each part spent on a task.
func (r EndToEndReport) table(w io.Writer, parts []Part) error {
	t := newTable(w)
	row(t, "DELIVERED/S", "TASKS", "ROUND P50", "ROUND P99")
	row(t, fmt.Sprintf("%.0f", r.PerSecond()), r.Delivered, short(r.Rounds.Quantile(50)), short(r.Rounds.Quantile(99)))
	row(t)
	row(t, "PART", "CPU µs/TASK")
	var sum time.Duration
	for i, p := range parts {
		sum += r.CPU[i]
		row(t, p.Name, r.PerTask(i).Microseconds())
	}
	row(t, "all", (sum / time.Duration(max(1, r.Delivered))).Microseconds())
	return t.Flush()
}

// table prints our share beside the oracle's.
func (r GoodputReport) table(w io.Writer, limit time.Duration) error {
	t := newTable(w)
	row(t, "WHO", "WITHIN "+limit.String(), "OF", "SHARE", "P50", "P99", "MAX")
	share := func(n int) string { return fmt.Sprintf("%.4f", float64(n)/float64(r.Arrivals)) }
	row(t, "penstock", r.Good, r.Arrivals, share(r.Good), short(r.Result.Quantile(50)), short(r.Result.Quantile(99)), short(r.Result.Quantile(100)))
	row(t, "oracle", r.Oracle, r.Arrivals, share(r.Oracle))
	row(t, "ratio", fmt.Sprintf("%.4f", r.Ratio()))
	return t.Flush()
}

// short rounds a latency to three figures, about.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
