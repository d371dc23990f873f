package dlt

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/worker/redrive"
)

func (p Params) jobs() *cobra.Command {
	var state string
	var limit int
	c := &cobra.Command{
		Use: "jobs [JOB]", Short: "List redrive jobs, newest first, or show one", Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			return p.with(func(cl *client.Client) error {
				if len(words) == 1 {
					return p.runJob(c, cl, words[0])
				}
				q := url.Values{"limit": {strconv.Itoa(limit)}}
				if state != "" {
					q.Set("state", state)
				}
				l, err := client.Operate[redrive.JobList](c.Context(), cl, http.MethodGet, jobsPath, q, nil)
				if err != nil {
					return err
				}
				return p.PrintFunc(c.OutOrStdout(), l, items(l.Jobs), jobTable(l.Jobs))
			})
		},
	}
	c.Flags().StringVar(&state, "state", "", "pending, running, pausing, paused, cancelling, cancelled, aborted or completed")
	c.Flags().IntVar(&limit, "limit", 20, "jobs at most")
	return c
}

func (p Params) runJob(c *cobra.Command, cl *client.Client, id string) error {
	j, err := client.Operate[redrive.Job](c.Context(), cl, http.MethodGet, jobsPath+"/"+url.PathEscape(id), nil, nil)
	if err != nil {
		return err
	}
	t := jobTable([]redrive.Job{j})
	for _, n := range j.Audit {
		t.Rows = append(t.Rows, []string{n.What, local(n.At), "by " + plain(dash(n.By))})
	}
	for _, s := range j.SkippedExamples {
		t.Rows = append(t.Rows, []string{"skipped " + s.ID.String(), string(s.Reason), string(s.TaskID)})
	}
	return p.PrintFunc(c.OutOrStdout(), j, []any{j}, t)
}

// order is one of pause, resume and cancel.
func (p Params) order(wish, short string) *cobra.Command {
	return &cobra.Command{
		Use: wish + " JOB", Short: short, Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			return p.with(func(cl *client.Client) error {
				j, err := client.Operate[redrive.Job](c.Context(), cl, http.MethodPost, jobsPath+"/"+url.PathEscape(words[0])+"/"+wish, nil, nil)
				if err != nil {
					return err
				}
				return p.PrintFunc(c.OutOrStdout(), j, []any{j}, jobTable([]redrive.Job{j}))
			})
		},
	}
}

// eta is how long a job will go on, if that is known.
func eta(j *redrive.Job) string {
	if j.ETASeconds == 0 {
		return "-"
	}
	return (time.Duration(j.ETASeconds) * time.Second).String()
}

// canary is the verdict, and what it is taken from.
func canary(j *redrive.Job) string {
	if j.Outcomes.Ended == 0 {
		return dash(string(j.Canary))
	}
	return fmt.Sprintf("%s, %d of %d ended badly", dash(string(j.Canary)), j.Outcomes.DiedAgain, j.Outcomes.Ended)
}

func jobTable(jobs []redrive.Job) Table {
	t := Table{Head: []string{"JOB", "STATE", "TOTAL", "REDRIVEN", "SKIPPED", "RATE", "ETA", "CANARY", "CREATED", "WHY"}}
	for _, j := range jobs {
		why := j.Reason
		if j.Skipped > 0 {
			why = "skipped: " + counts(j.SkippedFor)
			if j.Reason != "" {
				why = j.Reason + "; " + why
			}
		}
		t.Rows = append(t.Rows, []string{
			j.ID, string(j.State), strconv.Itoa(j.Total), strconv.Itoa(j.Redriven), strconv.Itoa(j.Skipped),
			fmt.Sprintf("%.0f of %g/s", j.RateReached, j.Spec.Rate), eta(&j), canary(&j), local(j.CreatedAt), dash(why),
		})
	}
	return t
}
