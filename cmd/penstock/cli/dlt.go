package cli

import (
	"cmp"
	"io"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/penstock/dlt"
)

// dlt is the operator's view of dead letters, with its own token: an API key
// does not open the admin routes.
func (e *env) dlt() *cobra.Command {
	return dlt.Command(dlt.Params{
		GroupID: "operate",
		ClientFunc: func() (*client.Client, error) {
			operator := *e
			if token := e.Getenv("PENSTOCK_ADMIN_TOKEN"); token != "" && e.key == "" {
				operator.key = token
			}
			operator.name = cmp.Or(e.Getenv("PENSTOCK_OPERATOR"), e.Getenv("USER"))
			return operator.client()
		},
		PrintFunc: func(w io.Writer, data any, items []any, t dlt.Table) error {
			return print(e, w, data, items, func([]any) table { return table{t.Head, t.Rows} })
		},
		TerminalFunc: func(stream any) bool {
			w, ok := stream.(io.Writer)
			return ok && isTerminal(w)
		},
	})
}
