package cli

import (
	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/bench"
)

// commands returns every verb.
func (e *env) commands() []*cobra.Command {
	return []*cobra.Command{
		e.submit(), e.get(), e.wait(), e.tail(), e.cancel(), e.list(), e.batch(), e.session(), e.webhook(),
		e.dev(), e.demo(), e.demoLLM(), e.simulate(), e.dlt(), e.topics(), e.doctor(), e.version(), bench.Command(e.honest, workplace),
	}
}
