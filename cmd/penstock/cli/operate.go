package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/telemetry"
	"github.com/penstock/penstock/schema/topic"
)

// version prints what the binary is.
func (e *env) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b := telemetry.ReadBuild()
			return print(e, c.OutOrStdout(), b, []telemetry.Build{b}, func(list []telemetry.Build) table {
				return table{rows: [][]string{{"penstock", list[0].Version, list[0].Commit, list[0].Go}}}
			})
		},
	}
}

// doctor probes a running system. With --quick it is a container's
// healthcheck: one line, exit 0 or 1.
func (e *env) doctor() *cobra.Command {
	var url string
	var quick bool
	var timeout time.Duration
	c := &cobra.Command{
		Use: "doctor", Short: "Check that a system answers, each fault with its cure", GroupID: "operate", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			if url == "" {
				url = e.api
			}
			return e.examine(ctx, c, strings.TrimSuffix(url, "/"), quick)
		},
	}
	c.Flags().StringVar(&url, "url", "", "base URL to probe; default --api")
	c.Flags().BoolVar(&quick, "quick", false, "ask /readyz only, as a container's healthcheck does")
	c.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "how long to wait in all")
	return c
}

// finding is one line of doctor's report.
type finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Cure  string `json:"cure,omitempty"`
}

func (e *env) examine(ctx context.Context, c *cobra.Command, url string, quick bool) error {
	cl, err := e.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	if quick {
		return cl.Probe(ctx, url, "/readyz")
	}
	var findings []finding
	faults := 0
	check := func(name string, err error, cure string) {
		f := finding{Check: name, OK: err == nil}
		if err != nil {
			f.Cure = fmt.Sprintf("%v. %s", err, cure)
			faults++
		}
		findings = append(findings, f)
	}
	check("process answers (/livez)", cl.Probe(ctx, url, "/livez"), "Start it, or correct --url.")
	check("wants traffic (/readyz)", cl.Probe(ctx, url, "/readyz"), "The body of /readyz names what it waits for: Kafka or Redis.")
	models, err := cl.Models(ctx)
	check("key is accepted (/v1/models)", err, "Give a valid --key.")
	if err == nil && len(models.Data) == 0 {
		check("a model is on offer", fmt.Errorf("the catalog is empty"), "Name a model in the catalog file.")
	}
	if err := print(e, c.OutOrStdout(), findings, findings, findingRows); err != nil {
		return err
	}
	if faults > 0 {
		return fmt.Errorf("%d of %d checks failed", faults, len(findings))
	}
	return nil
}

func findingRows(list []finding) table {
	var t table
	for _, f := range list {
		mark := "ok  "
		if !f.OK {
			mark = "FAIL"
		}
		t.rows = append(t.rows, []string{mark, f.Check, f.Cure})
	}
	return t
}

// topics shows the declared plan, or makes it so.
func (e *env) topics() *cobra.Command {
	c := &cobra.Command{Use: "topics", Short: "The topics that Penstock needs", GroupID: "operate"}
	var brokers, pools []string
	var p topic.Params
	plan := &cobra.Command{
		Use: "plan", Short: "Print every topic with its settings", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p.Pools = pools
			topics, err := topic.Plan(p)
			if err != nil {
				return &lifecycle.UsageError{Err: err}
			}
			return print(e, c.OutOrStdout(), topics, topics, topicRows)
		},
	}
	apply := &cobra.Command{
		Use: "apply", Short: "Create the topics that are missing and check the others", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p.Pools = pools
			return applyTopics(c.Context(), c, brokers, p)
		},
	}
	for _, sub := range []*cobra.Command{plan, apply} {
		f := sub.Flags()
		f.StringSliceVar(&pools, "pools", []string{"default"}, "pools of the catalog")
		f.Int32Var(&p.Partitions, "partitions", 12, "of every topic but penstock.control; fixed for life for penstock.results")
		f.Int16Var(&p.Replication, "replication", 3, "copies of every partition")
		f.Int16Var(&p.MinISR, "min-isr", 0, "copies that must confirm; 0: 2 with a replication of 3 or more, else 1")
		f.DurationVar(&p.Retention, "retention", 72*time.Hour, "of tasks, retries and results")
		f.DurationVar(&p.DeadLetter, "dead-letter-retention", 30*24*time.Hour, "of dead letters and penstock.control")
	}
	apply.Flags().StringSliceVar(&brokers, "kafka", []string{"127.0.0.1:9092"}, "bootstrap addresses, host:port")
	c.AddCommand(plan, apply)
	return c
}

func topicRows(topics []topic.Topic) table {
	t := table{head: []string{"TOPIC", "PARTITIONS", "REPLICAS", "RETENTION", "POLICY"}}
	for _, v := range topics {
		t.rows = append(t.rows, []string{
			v.Name, fmt.Sprint(v.Partitions), fmt.Sprint(v.Replication), v.Config["retention.ms"] + " ms", v.Config["cleanup.policy"],
		})
	}
	return t
}

func applyTopics(ctx context.Context, c *cobra.Command, brokers []string, p topic.Params) error {
	topics, err := topic.Plan(p)
	if err != nil {
		return &lifecycle.UsageError{Err: err}
	}
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: brokers, ClientID: "penstock-cli"}, log)
	if err != nil {
		return &lifecycle.UsageError{Err: err}
	}
	defer cl.Close()
	if err := kafkaclient.EnsureTopics(ctx, cl, topics, log); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "%d topics are in place\n", len(topics))
	return nil
}
