package demo

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/task"
)

// summary prints what the pipeline itself counted, and holds it against what
// was submitted.
func (g *guide) summary(ctx context.Context) error {
	m, err := g.cl.Metrics(ctx, g.url)
	if err != nil {
		return err
	}
	listed, err := g.listed(ctx)
	if err != nil {
		return err
	}
	rows := []struct {
		what  string
		count float64
		want  float64 // what the tour did; negative: any
	}{
		{"tasks accepted by the ingress", m.Sum("penstock_producer_tasks_total", `outcome="accepted"`), float64(g.submitted)},
		{"tasks that succeeded, as the API lists them", float64(listed[task.Succeeded]), float64(g.submitted)},
		{"batches that the worker formed", m.Sum("penstock_worker_batches_total"), -1},
		{"tasks in those batches", m.Sum("penstock_worker_batch_tasks_sum"), -1},
		{"retries of the poisoned task", m.Sum("penstock_worker_attempts_total", `outcome="retry"`), -1},
		{"dead letters in the index", m.Sum("penstock_worker_redrive_index_letters"), 1},
		{"dead letters put back to work", m.Sum("penstock_worker_redrive_letters_total", `outcome="redriven"`), 1},
		{"records projected into Redis", m.Sum("penstock_resultsvc_projector_records_total", `outcome="applied"`), -1},
	}
	w := tabwriter.NewWriter(g.out, 3, 4, 2, ' ', 0)
	var wrong error
	for _, r := range rows {
		fmt.Fprintf(w, "   %s\t%.0f\n", r.what, r.count)
		if r.want >= 0 && r.count != r.want {
			wrong = fmt.Errorf("%s: %.0f, the tour made %.0f", r.what, r.count, r.want)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return wrong
}

// listed counts the caller's tasks by status, page by page.
func (g *guide) listed(ctx context.Context) (map[task.Status]int, error) {
	out := map[task.Status]int{}
	for f := (client.Filter{Limit: 200}); ; {
		page, err := g.cl.List(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, t := range page.Tasks {
			out[t.Status]++
		}
		if page.After == "" {
			return out, nil
		}
		f.After = page.After
	}
}
