package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// Answers compares the answers that come through the queue with those of the
// engine itself, in turns: when the first token of a streamed one is there, how
// old each token is when it comes, and how long a plain call takes. The engine
// must be `penstock simulate --stamp` whose plain calls cost nothing, so that
// what is measured of those is the way alone.
type Answers struct {
	Engine string         // base URL of the engine
	Client *client.Client // of the system
	Turn   time.Duration  // how long calls are begun in a turn
	Rounds int            // of one turn of each side
}

// Sides of the comparison; the first is the yardstick.
const (
	sideEngine = "engine itself"
	sideOpenAI = "queue, OpenAI API"
	sideNative = "queue, native SSE"
)

// Loads of the comparison.
const (
	tokenTime  = 20 * time.Millisecond
	fewTokens  = 8  // of an answer when one stream runs alone
	manyTokens = 32 // and when many do
	manyAtOnce = 50
	plainRate  = 100.0 // calls a second
)

// StreamedSide is one side at one number of streams, all its turns together.
type StreamedSide struct {
	Name    string
	Streams int
	First   Result // until the first token, from before the request on
	Age     Result // of each token when it came, by the clock that both processes share
}

// PlainSide is one side's plain calls under one load, all its turns together.
type PlainSide struct {
	Name, Load string
	Result     Result
}

// AnswersReport is what came out, by load; the engine's own side is the first
// of each.
type AnswersReport struct {
	Streamed []StreamedSide
	Plain    []PlainSide
}

// Run takes the turns.
func (a Answers) Run(ctx context.Context) (out AnswersReport, err error) {
	calls := newCaller()
	defer calls.close()
	for _, load := range []struct{ streams, tokens int }{{1, fewTokens}, {manyAtOnce, manyTokens}} {
		sides, err := a.streamed(ctx, calls, load.streams, load.tokens)
		if err != nil {
			return out, err
		}
		out.Streamed = append(out.Streamed, sides...)
	}
	for _, load := range []Load{{Clients: 1}, {Rate: plainRate}} {
		sides, err := a.plain(ctx, calls, load)
		if err != nil {
			return out, err
		}
		out.Plain = append(out.Plain, sides...)
	}
	return out, nil
}

// asker asks for one streamed answer and has each piece of its text heard. It
// fails unless the answer came whole.
type asker func(ctx context.Context, hear func(text string) error) error

// streamed compares the three ways of a streamed answer.
func (a Answers) streamed(ctx context.Context, calls *caller, streams, tokens int) ([]StreamedSide, error) {
	sides := []struct {
		name  string
		ask   asker
		heard *hearing
	}{
		{sideEngine, calls.streamed(a.Engine, tokens), newHearing()},
		{sideOpenAI, calls.streamed(a.Client.API(), tokens), newHearing()},
		{sideNative, native(a.Client, tokens), newHearing()},
	}
	for round := range a.Rounds + 1 {
		for _, s := range sides {
			t := turn{streams: streams, tokens: tokens, length: a.Turn, ask: s.ask, heard: s.heard}
			if round == 0 { // connections are open and all has run once before it counts
				t.length, t.heard = warmUp, newHearing()
			}
			if err := t.run(ctx); err != nil {
				return nil, fmt.Errorf("%d streams, %s: %w", streams, s.name, err)
			}
		}
	}
	out := make([]StreamedSide, len(sides))
	for i, s := range sides {
		out[i] = StreamedSide{
			Name: s.name, Streams: streams, First: merge([]*tally{s.heard.first}, 0), Age: merge([]*tally{s.heard.age}, 0),
		}
	}
	return out, nil
}

// warmUp is how long each side runs before it counts.
const warmUp = time.Second

// turn is one side's streams for a while.
type turn struct {
	streams, tokens int
	length          time.Duration
	ask             asker
	heard           *hearing
}

// run has each stream follow the one before it. They begin one after another
// over the length of an answer: streams that all began at once would stay in
// step, and it would be bursts that are measured.
func (t turn) run(ctx context.Context) error {
	began := time.Now()
	apart := time.Duration(t.tokens) * tokenTime / time.Duration(t.streams)
	g, ctx := errgroup.WithContext(ctx)
	for i := range t.streams {
		g.Go(func() error {
			if err := waitUntil(ctx, began.Add(time.Duration(i)*apart)); err != nil {
				return err
			}
			for first := true; first || time.Since(began) < t.length; first = false {
				if err := t.heard.listen(ctx, t.ask, t.tokens); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// hearing is what was heard of one side. It is safe for concurrent use.
type hearing struct {
	mu         sync.Mutex
	first, age *tally
}

func newHearing() *hearing { return &hearing{first: newTally(), age: newTally()} }

// listen asks once. An answer of another number of tokens is an error: some
// were lost, or came twice.
func (h *hearing) listen(ctx context.Context, ask asker, tokens int) error {
	began, n := time.Now(), 0
	var born []time.Time
	err := ask(ctx, func(text string) error {
		now := time.Now()
		var err error
		if born, err = simulated.Stamps(born[:0], text); err != nil {
			return err
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if n == 0 && len(born) > 0 {
			h.first.add(now.Sub(began), nil)
		}
		for _, at := range born {
			h.age.add(max(0, now.Sub(at)), nil)
		}
		n += len(born)
		return nil
	})
	if err == nil && n != tokens {
		err = fmt.Errorf("an answer of %d tokens came as %d", tokens, n)
	}
	return err
}

// plain compares calls that are not streamed.
func (a Answers) plain(ctx context.Context, calls *caller, load Load) ([]PlainSide, error) {
	out := []PlainSide{{Name: sideEngine}, {Name: sideOpenAI}}
	for round := range a.Rounds + 1 {
		for i, url := range []string{a.Engine, a.Client.API()} {
			load.Length, load.Seed = a.Turn/2, uint64(round)
			if round == 0 {
				load.Length = warmUp
			}
			r := load.Run(ctx, func(ctx context.Context, _ int) error { return calls.plain(ctx, url) })
			if err := r.check("plain calls, " + out[i].Name); err != nil {
				return nil, err
			}
			if round > 0 {
				out[i].Result.join(r)
			}
		}
	}
	for i := range out {
		out[i].Load = "1 caller"
		if load.Rate > 0 {
			out[i].Load = fmt.Sprintf("%.0f/s, Poisson", load.Rate)
		}
	}
	return out, nil
}
