package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/batch"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/schema/task"
)

func (e *env) batch() *cobra.Command {
	c := &cobra.Command{
		Use: "batch", Short: "Work through files of tasks", GroupID: "task", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(e.batchRun())
	return c
}

func (e *env) batchRun() *cobra.Command {
	var p batch.Params
	var class, choice string
	c := &cobra.Command{
		Use:   "run FILE",
		Short: "Run a file of tasks and gather their results; run it again to go on",
		Long: `Runs a file of JSON lines, each the body of POST /v1/inference with a custom_id of its own.
Every line is checked before the first is submitted. Results come as JSON lines with their
custom_id, in the order in which the tasks end.

The same command goes on where a run was cut short: lines with a result in the output file are
done, and tasks that the server still knows are found again, not made anew. Exit 3 if a task
did not succeed.`,
		Example: `  penstock batch run tasks.jsonl -o results.jsonl
  penstock batch run tasks.jsonl --model sim-chat --concurrency 200 > results.jsonl`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			p.File, p.Defaults.Class = words[0], task.Class(class)
			var err error
			if p.OnInterrupt, err = batch.ParseChoice(choice); err != nil {
				return &lifecycle.UsageError{Err: fmt.Errorf("--on-interrupt %w", err)}
			}
			if p.Concurrency < 1 || p.Concurrency > batch.MaxConcurrency {
				return &lifecycle.UsageError{Err: fmt.Errorf("--concurrency %d: want 1 to %d", p.Concurrency, batch.MaxConcurrency)}
			}
			return e.runBatch(c, p)
		},
	}
	f := c.Flags()
	f.StringVarP(&p.Out, "output", "o", "", "file of the results, which is gone on with; default: stdout")
	f.StringVarP(&p.Defaults.Model, "model", "m", "", "model of lines that name none; default: what the routing rules find")
	f.StringVar(&class, "class", string(task.Bulk), "class of lines that name none")
	f.IntVar(&p.Concurrency, "concurrency", 64, "tasks in flight at once")
	f.BoolVar(&p.Fresh, "fresh", false, "make new tasks, although the server may know the file's")
	f.StringVar(&choice, "on-interrupt", string(batch.Ask), "what Ctrl-C does with tasks in flight: ask, keep or cancel")
	return c
}

func (e *env) runBatch(c *cobra.Command, p batch.Params) error {
	cl, err := e.connect(manyRetries)
	if err != nil {
		return err
	}
	defer cl.Close()
	p.Stdin, p.Stdout, p.Stderr = c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()
	began := time.Now()
	sum, err := batch.Run(c.Context(), cl, p)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stderr, "%d succeeded, %d did not, %d had their result before (%s)\n",
		sum.Succeeded, sum.Failed, sum.Before, time.Since(began).Round(time.Millisecond))
	if sum.Failed > 0 {
		return &exitError{fmt.Errorf("%d of %d tasks did not succeed", sum.Failed, sum.Total), ExitTaskFailed}
	}
	return nil
}
