package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/penstock/penstock/cmd/penstock/bench/bare"
)

// Accept compares how many tasks a second the ingress accepts with what the
// bare handler does, in turns A B A B against one broker, so that a slow
// moment of the machine does not count for one side alone. The workers should
// be stopped: they would compete for the same processors.
type Accept struct {
	System string // base URL of the ingress
	Bare   string // base URL of the bare handler; empty: measure the ingress alone
	Load   Load   // of one turn
	Rounds int    // of one turn each
	Parts  []Part // whose processor time is told apart
}

// AcceptReport is what came out.
type AcceptReport struct {
	System, Bare Result // all turns of each together
	Turns        []Turn
	CPU          map[string][]time.Duration // by side: what each of Parts used in all its turns
}

// Turn is one turn, for people who want to see the spread.
type Turn struct {
	Side      string  `json:"side"`
	PerSecond float64 `json:"per_second"`
}

// Ratio is the ingress's rate over the bare handler's: the median of all
// rounds, each of which compares two turns that followed each other. A burst of
// somebody else's work on the machine then spoils a round, not the result.
func (r AcceptReport) Ratio() float64 {
	var rounds []float64
	for i := 0; i+1 < len(r.Turns); i += 2 {
		rounds = append(rounds, r.Turns[i].PerSecond/r.Turns[i+1].PerSecond)
	}
	slices.Sort(rounds)
	n := len(rounds)
	return (rounds[(n-1)/2] + rounds[n/2]) / 2
}

// Run takes the turns.
func (a Accept) Run(ctx context.Context) (AcceptReport, error) {
	out := AcceptReport{CPU: map[string][]time.Duration{}}
	sides := []struct {
		name, url string
		sum       *Result
	}{{"system", a.System, &out.System}, {"bare", a.Bare, &out.Bare}}
	for _, s := range sides { // connections, caches and the broker's logs are warm before it counts
		if err := a.turn(ctx, s.url, time.Second).check("warm up " + s.name); s.url != "" && err != nil {
			return out, err
		}
	}
	for range a.Rounds {
		for _, s := range sides {
			if s.url == "" {
				continue
			}
			m, err := startMeter(a.Parts)
			if err != nil {
				return out, err
			}
			r := a.turn(ctx, s.url, a.Load.Length)
			if err := errors.Join(r.check("accept, "+s.name), m.addTo(out.CPU, s.name)); err != nil {
				return out, err
			}
			out.Turns = append(out.Turns, Turn{s.name, r.PerSecond()})
			s.sum.join(r)
		}
	}
	return out, ctx.Err()
}

func (a Accept) turn(ctx context.Context, url string, length time.Duration) Result {
	if url == "" {
		return Result{}
	}
	load := a.Load
	load.Length = length
	p := newPoster(url)
	defer p.close()
	return load.Run(ctx, func(ctx context.Context, _ int) error {
		_, err := p.post(ctx, nil)
		return err
	})
}

// join adds another run's calls and time.
func (r *Result) join(o Result) {
	if r.Latency == nil {
		r.Latency = hdrhistogram.New(1, slowest.Microseconds(), digits)
	}
	if o.Latency != nil { // nil where nobody calls
		r.Latency.Merge(o.Latency)
	}
	r.Calls += o.Calls
	r.Failed += o.Failed
	r.Elapsed += o.Elapsed
}

// poster submits the benchmark's one body, with as little client in the way as
// net/http allows.
type poster struct {
	url  string
	body []byte
	http *http.Client
}

func newPoster(base string) *poster {
	return &poster{url: base + "/v1/inference", body: requestBody(), http: newHTTP()}
}

// newHTTP returns a client that keeps every connection an open loop may need.
func newHTTP() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.DisableCompression = openInFlight, openInFlight, true
	return &http.Client{Transport: t}
}

func (p *poster) close() { p.http.CloseIdleConnections() }

// post submits once and returns the answer's body. Any status but 200 and 202
// is an error.
func (p *poster) post(ctx context.Context, header http.Header) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(p.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := p.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusAccepted && res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %.200s", res.Status, raw)
	}
	return raw, nil
}

// requestBody is the one body that the benchmark submits.
func requestBody() []byte {
	body, err := json.Marshal(bare.Request())
	if err != nil {
		panic(err) // a constant that cannot be encoded is our bug
	}
	return body
}
