package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// simulate serves the simulated engine alone: what a worker of `openai+http`
// speaks to in tests, in compose and in benchmarks.
func (e *env) simulate() *cobra.Command {
	var listen string
	p := simulated.DefaultParams()
	c := &cobra.Command{
		Use: "simulate", Short: "Serve a simulated engine over the OpenAI HTTP protocol, with fault switches", GroupID: "run",
		Long: `Serves /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/models at the cost
of base + n × item for a call of n prompts, and of token for each streamed token.

  curl -d '{"match":"poison","status":500}' localhost:9000/sim/faults     # switch a fault on
  curl -X DELETE localhost:9000/sim/faults                                # switch all off
  curl localhost:9000/sim/executions                                      # which task ran how often`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if p.Max < 1 || p.Base < 0 || p.Item < 0 || p.Token < 0 {
				return &lifecycle.UsageError{Err: errors.New("--max must be at least 1; --base, --item and --token must not be negative")}
			}
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			fmt.Fprintf(c.ErrOrStderr(), "simulated engine on http://%s\n", ln.Addr())
			return serveEngine(c.Context(), ln, simulated.New(p))
		},
	}
	f := c.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:9000", "address")
	f.DurationVar(&p.Base, "base", p.Base, "cost of a call")
	f.DurationVar(&p.Item, "item", p.Item, "cost of each prompt of a call")
	f.DurationVar(&p.Token, "token", p.Token, "time of a streamed token")
	f.IntVar(&p.Max, "max", 32, "prompts of a call at most")
	f.BoolVar(&p.Stamp, "stamp", false, "make each streamed token the time of its birth, in µs since 1970, instead of a word")
	return c
}

// stopGrace is how long calls in flight may take once the engine is to stop.
const stopGrace = 5 * time.Second

func serveEngine(ctx context.Context, ln net.Listener, engine *simulated.Engine) error {
	mux := http.NewServeMux()
	mux.Handle("/", engine.Handler())
	for _, path := range []string{"/livez", "/readyz"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // a hanging call is what this engine is for
		}
	})
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	<-stopped
	return nil
}
