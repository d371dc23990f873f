package dlt

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/worker/redrive"
)

const discardsPath = "/admin/v1/discards"

func (p Params) discard() *cobra.Command {
	var s selection
	var reason string
	var dryRun bool
	c := &cobra.Command{
		Use: "discard [ID…]", Short: "Hide dead letters that nobody will redrive, with the reason",
		Long: `Marks dead letters as discarded: lists, groups and filters pass over them from then on,
unless asked for with --state discarded. Nothing is deleted; naming its id still redrives a
discarded letter.`,
		Example: `  penstock dlt discard 3-1207 --reason "bytes of another system"
  penstock dlt discard --disposition undecodable --reason "old producer" --dry-run`,
		RunE: func(c *cobra.Command, ids []string) error {
			ask, err := s.discard(ids, reason)
			if err != nil {
				return err
			}
			ask.DryRun = dryRun
			return p.with(func(cl *client.Client) error {
				d, err := client.Operate[redrive.Discarded](c.Context(), cl, http.MethodPost, discardsPath, nil, ask)
				if err != nil {
					return err
				}
				return p.PrintFunc(c.OutOrStdout(), d, []any{d}, Table{Rows: [][]string{
					{"discarded", fmt.Sprint(d.Discarded)}, {"left out, redriven", fmt.Sprint(d.Redriven)}, {"discard", dash(d.ID)},
				}})
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why; required")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say how many and write nothing")
	return c
}

// discard is the API's form of a selection.
func (s *selection) discard(ids []string, reason string) (redrive.DiscardRequest, error) {
	ask := redrive.DiscardRequest{IDs: ids, Reason: reason}
	switch {
	case (len(ids) > 0) == !s.empty():
		return ask, usageError("give ids, or a filter such as --code; see `penstock dlt discard --help`")
	case reason == "":
		return ask, usageError("--reason is required: whoever finds the letter later will ask")
	case len(ids) > 0:
		return ask, nil
	}
	f, err := s.filter(time.Now())
	ask.Filter = &f
	return ask, err
}
