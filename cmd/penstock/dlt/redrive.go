package dlt

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/worker/redrive"
)

const jobsPath = "/admin/v1/redrives"

// plan is what `dlt redrive` was told.
type plan struct {
	selection
	all, dryRun, yes, wait bool
	rate                   float64
	limit                  int
	note                   string
	canary                 int
	stopRatio              float64
	force                  bool
}

func (p Params) redrive() *cobra.Command {
	var r plan
	c := &cobra.Command{
		Use: "redrive [ID…]", Short: "Put dead letters back to work: by id, by filter, or all",
		Long: `Puts dead letters back to work under their task's own id. What would happen is shown
first; on a terminal you are then asked, in a script --yes answers. The job runs on the
server, at --rate letters a second, and goes on when this command ends.`,
		Example: `  penstock dlt redrive 3-1207 task_…
  penstock dlt redrive --code unavailable --since 2h --dry-run
  penstock dlt redrive --group 9f2c31aa04de --rate 20 --yes --wait
  penstock dlt redrive --all --limit 10`,
		RunE: func(c *cobra.Command, ids []string) error {
			ask, err := r.request(ids)
			if err != nil {
				return err
			}
			return p.with(func(cl *client.Client) error { return p.runRedrive(c, cl, &r, ask) })
		},
	}
	r.flags(c)
	f := c.Flags()
	f.BoolVar(&r.all, "all", false, "every dead letter")
	f.BoolVar(&r.dryRun, "dry-run", false, "say what would happen and write nothing")
	f.Float64Var(&r.rate, "rate", 50, "letters a second")
	f.IntVar(&r.limit, "limit", 0, "letters at most, oldest first; 0: all that match")
	f.StringVar(&r.note, "note", "", "why, for the record")
	f.IntVar(&r.canary, "canary", 50, "tasks after which the job waits what becomes of them; 0: none")
	f.Float64Var(&r.stopRatio, "stop-ratio", 0.2, "abort when more than this share of the redriven tasks ends badly again")
	f.BoolVar(&r.force, "force", false, "also tasks that were redriven too often")
	f.BoolVar(&r.yes, "yes", false, "do not ask")
	f.BoolVar(&r.wait, "wait", false, "wait for the end, with progress on stderr")
	return c
}

// request is the API's form. Selecting nothing is an error, because everything
// must be meant.
func (r *plan) request(ids []string) (redrive.Request, error) {
	ask := redrive.Request{
		IDs: ids, Rate: r.rate, Limit: r.limit, Note: r.note, Canary: &r.canary, StopRatio: &r.stopRatio, Force: r.force,
	}
	ways := 0
	for _, given := range []bool{len(ids) > 0, !r.empty(), r.all} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return ask, usageError("give ids, or a filter such as --code, or --all; see `penstock dlt redrive --help`")
	case r.rate <= 0:
		return ask, usageError("--rate %g: want more than 0 letters a second", r.rate)
	}
	if len(ids) > 0 {
		return ask, nil
	}
	f, err := r.filter(time.Now())
	ask.Filter = &f
	return ask, err
}

func (p Params) runRedrive(c *cobra.Command, cl *client.Client, r *plan, ask redrive.Request) error {
	ask.DryRun = true
	preview, err := client.Operate[redrive.Preview](c.Context(), cl, http.MethodPost, jobsPath, nil, ask)
	if err != nil {
		return err
	}
	if r.dryRun {
		return p.PrintFunc(c.OutOrStdout(), preview, []any{preview}, Table{Rows: previewRows(&preview)})
	}
	if preview.WouldMove == 0 {
		return fmt.Errorf("nothing to redrive: %s", summary(&preview))
	}
	fmt.Fprintln(c.ErrOrStderr(), summary(&preview))
	if err := p.agree(c, r, preview.WouldMove); err != nil {
		return err
	}
	ask.DryRun = false
	j, err := client.Operate[redrive.Job](c.Context(), cl, http.MethodPost, jobsPath, nil, ask)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "job %s runs on the server; `penstock dlt jobs %s` shows it, `penstock dlt pause|cancel %s` stops it\n", j.ID, j.ID, j.ID)
	if r.wait {
		if j, err = p.follow(c.Context(), c.ErrOrStderr(), cl, j); err != nil {
			return err
		}
	}
	if err := p.PrintFunc(c.OutOrStdout(), j, []any{j}, jobTable([]redrive.Job{j})); err != nil {
		return err
	}
	if r.wait && j.State != redrive.JobCompleted {
		return fmt.Errorf("job %s is %s after %d of %d letters: %s", j.ID, j.State, j.Redriven+j.Skipped, j.Total, dash(j.Reason))
	}
	return nil
}

// agree asks the person in front of it; without one, --yes is the answer.
func (p Params) agree(c *cobra.Command, r *plan, n int) error {
	if r.yes {
		return nil
	}
	if !p.TerminalFunc(c.InOrStdin()) || !p.TerminalFunc(c.ErrOrStderr()) {
		return usageError("nobody to ask: add --yes to redrive %d letters, or --dry-run", n)
	}
	fmt.Fprintf(c.ErrOrStderr(), "Redrive %d letters at %g a second? [y/N] ", n, r.rate)
	answer, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	if err != nil && answer == "" {
		return fmt.Errorf("read answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return fmt.Errorf("not redriven: the answer was no")
	}
	return nil
}

// follow shows the progress until the job ends or stops by itself.
func (p Params) follow(ctx context.Context, w io.Writer, cl *client.Client, j redrive.Job) (redrive.Job, error) {
	screen := p.TerminalFunc(w)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	shown := time.Time{}
	for {
		if screen || time.Since(shown) >= 5*time.Second {
			shown = time.Now()
			progress(w, &j, screen)
		}
		if j.State.Ended() || j.State == redrive.JobPaused {
			if screen {
				fmt.Fprintln(w)
			}
			return j, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			fmt.Fprintf(w, "\nthe job goes on without you: penstock dlt jobs %s\n", j.ID)
			return j, ctx.Err()
		}
		next, err := client.Operate[redrive.Job](ctx, cl, http.MethodGet, jobsPath+"/"+j.ID, nil, nil)
		if err != nil && ctx.Err() == nil {
			return j, fmt.Errorf("the job goes on, but its progress cannot be read: %w", err)
		}
		if err == nil {
			j = next
		}
	}
}

func progress(w io.Writer, j *redrive.Job, screen bool) {
	line := fmt.Sprintf("%s: %d of %d redriven, %d skipped", j.State, j.Redriven, j.Total, j.Skipped)
	if j.Canary == redrive.CanaryWaiting {
		line += fmt.Sprintf("; %d of the first %d tasks have ended, %d badly", j.Outcomes.Ended, j.Spec.Canary, j.Outcomes.DiedAgain)
	}
	if screen {
		fmt.Fprintf(w, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(w, line)
}

// summary is the dry run in a line.
func summary(v *redrive.Preview) string {
	s := fmt.Sprintf("would move %d", v.WouldMove)
	if v.WouldMove > 0 {
		s += " (" + counts(v.ByCode) + "; " + counts(v.ByDisposition) + "; " + counts(v.ByModel) + ")"
	}
	if v.WouldSkip > 0 {
		s += fmt.Sprintf(", skip %d (%s)", v.WouldSkip, counts(v.SkipFor))
	}
	if v.Beyond > 0 {
		s += fmt.Sprintf(", leave %d beyond the limit", v.Beyond)
	}
	return s
}

func previewRows(v *redrive.Preview) [][]string {
	rows := [][]string{{"would move", fmt.Sprint(v.WouldMove)}}
	if v.WouldMove > 0 {
		rows = append(rows, []string{"by code", counts(v.ByCode)}, []string{"by disposition", counts(v.ByDisposition)},
			[]string{"by model", counts(v.ByModel)}, []string{"by pool", counts(v.ByPool)},
			[]string{"takes about", (time.Duration(v.Seconds*1000) * time.Millisecond).String()})
	}
	if v.WouldSkip > 0 {
		rows = append(rows, []string{"would skip", fmt.Sprintf("%d: %s", v.WouldSkip, counts(v.SkipFor))})
	}
	if v.Beyond > 0 {
		rows = append(rows, []string{"beyond the limit", fmt.Sprint(v.Beyond)})
	}
	if v.Evicted > 0 {
		rows = append(rows, []string{"not in the index", fmt.Sprint(v.Evicted)})
	}
	return rows
}

// counts writes a tally, the largest first.
func counts[K ~string](m map[K]int) string {
	keys := slices.Collect(maps.Keys(m))
	slices.SortFunc(keys, func(a, b K) int {
		if m[a] != m[b] {
			return m[b] - m[a]
		}
		return strings.Compare(string(a), string(b))
	})
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = fmt.Sprintf("%d %s", m[k], dash(string(k)))
	}
	return strings.Join(parts, ", ")
}
