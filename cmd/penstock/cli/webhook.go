package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/listen"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// webhook is all about webhooks.
func (e *env) webhook() *cobra.Command {
	c := &cobra.Command{
		Use: "webhook", Short: "Receive webhooks on this machine, and see what became of them", GroupID: "task",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(e.webhookListen(), e.webhookLog())
	return c
}

// webhookListen receives and verifies deliveries.
func (e *env) webhookListen() *cobra.Command {
	port, forward := 8090, ""
	c := &cobra.Command{
		Use: "listen", Short: "Print deliveries whose signature fits", Args: cobra.NoArgs,
		Long: `Receives webhooks on this machine, verifies each as its receiver should, and prints it.
The secret is asked of the API, or taken from PENSTOCK_WEBHOOK_SECRET. A server calls
this machine only if it may call private addresses, as penstock dev does.`,
		Example: `  penstock webhook listen
  curl -s localhost:8080/v1/inference -H 'Content-Type: application/json' \
    -d '{"model":"sim-chat","payload":{"text":"hi"},"webhook":{"url":"http://127.0.0.1:8090/"}}'
  penstock webhook listen --forward http://127.0.0.1:3000/hooks   # and hand it on`,
		RunE: func(c *cobra.Command, _ []string) error {
			if u, err := url.Parse(forward); forward != "" && (err != nil || u.Host == "") {
				return &lifecycle.UsageError{Err: errors.New("--forward: want a URL such as http://127.0.0.1:3000/hooks")}
			}
			verifier, err := e.verifier(c.Context())
			if err != nil {
				return err
			}
			var lc net.ListenConfig
			ln, err := lc.Listen(c.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			fmt.Fprintf(c.ErrOrStderr(), "listening; submit with \"webhook\":{\"url\":\"http://%s/\"}\n", ln.Addr())
			return listen.Serve(c.Context(), ln, listen.Params{
				Verifier: verifier, Forward: forward, JSON: e.output != "table", Out: c.OutOrStdout(), Err: c.ErrOrStderr(),
			})
		},
	}
	c.Flags().IntVar(&port, "port", port, "port on loopback; 0: a free one")
	c.Flags().StringVar(&forward, "forward", "", "URL that deliveries are handed on to, as they came")
	return c
}

// verifier checks with the caller's secret.
func (e *env) verifier(ctx context.Context) (*callback.Verifier, error) {
	secret := config.Secret(e.Getenv("PENSTOCK_WEBHOOK_SECRET"))
	if secret == "" {
		cl, err := e.client()
		if err != nil {
			return nil, err
		}
		defer cl.Close()
		text, err := cl.WebhookSecret(ctx)
		if err != nil {
			return nil, err
		}
		secret = config.Secret(text)
	}
	v, err := callback.NewVerifier(secret)
	if err != nil {
		return nil, &lifecycle.UsageError{Err: fmt.Errorf("PENSTOCK_WEBHOOK_SECRET: %w", err)}
	}
	return v, nil
}

// webhookLog shows what became of the webhook of one task or batch.
func (e *env) webhookLog() *cobra.Command {
	return &cobra.Command{
		Use: "log TASK_ID|BATCH_ID", Short: "Show each attempt to deliver the webhook of a task or batch", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			cl, err := e.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			var log webhook.Log
			if strings.HasPrefix(words[0], "batch_") {
				log, err = cl.BatchWebhook(c.Context(), words[0])
			} else {
				log, err = cl.Webhook(c.Context(), task.ID(words[0]))
			}
			if err != nil {
				return err
			}
			return print(e, c.OutOrStdout(), log, log.Deliveries, deliveryTable)
		},
	}
}

func deliveryTable(of []webhook.Delivery) table {
	t := table{head: []string{"EVENT", "STATE", "ATTEMPT", "AT", "OUTCOME", "STATUS", "NEXT"}}
	for _, d := range of {
		if len(d.Attempts) == 0 {
			t.rows = append(t.rows, []string{d.Type, string(d.State), "-", "-", "-", "-", "-"})
		}
		for _, a := range d.Attempts {
			next, status := "-", "-"
			if !a.Next.IsZero() {
				next = a.Next.Local().Format(time.DateTime)
			}
			if a.Status != 0 {
				status = strconv.Itoa(a.Status)
			}
			t.rows = append(t.rows, []string{
				d.Type, string(d.State), strconv.Itoa(a.N), a.At.Local().Format(time.DateTime), string(a.Outcome),
				status, next,
			})
		}
	}
	return t
}
