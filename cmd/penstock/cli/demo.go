package cli

import (
	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/demo"
)

// demoLLM is the demo on a real engine; scripts/demo-llm.sh starts what it
// needs.
func (e *env) demoLLM() *cobra.Command {
	var d demo.LLM
	c := &cobra.Command{
		Use: "demo-llm", Short: "Run 50 real prompts through real processes on a real engine", GroupID: "run",
		Long: `Starts the three services as processes of their own against a given Kafka, Redis and
OpenAI-compatible engine, streams chats over SSE, runs prompt arrays, and prints
tokens/s and percentiles. scripts/demo-llm.sh starts all that it needs.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			bin, dir, err := workplace("demo-llm")
			if err != nil {
				return err
			}
			d.Params.Bin, d.Params.Dir, d.Out = bin, dir, c.OutOrStdout()
			return d.Run(c.Context())
		},
	}
	f := c.Flags()
	f.StringSliceVar(&d.Params.Kafka, "kafka", []string{"127.0.0.1:9092"}, "bootstrap addresses, host:port")
	f.StringVar(&d.Params.Redis, "redis", "redis://127.0.0.1:6379/0", "URL of Redis")
	f.StringVar(&d.Engine, "engine", "http://127.0.0.1:8000", "base URL of an engine that speaks the OpenAI protocol")
	f.StringVar(&d.Model, "model", "smollm2-135m", "model, as the engine calls it")
	f.IntVar(&d.Slots, "slots", 4, "answers that the engine makes at once")
	f.IntVar(&d.Tokens, "max-tokens", 48, "length of an answer at most")
	return c
}
