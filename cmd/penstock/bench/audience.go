package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// audience is clients of event streams that listen and never ask. It must be
// closed.
type audience struct {
	http   *http.Client
	ctx    context.Context // of the streams
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex // guards what follows
	ages *tally
	end  error // of the first stream that ended by itself
}

func newAudience(protocol string) *audience {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(protocol == overHTTP1)
	t.Protocols.SetUnencryptedHTTP2(protocol == overH2C)
	a := &audience{http: &http.Client{Transport: t}, ages: newTally()}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

func (a *audience) close() {
	a.cancel()
	a.wg.Wait()
	a.http.CloseIdleConnections()
}

// doors is how many streams are opened at once.
const doors = 64

// open opens a stream of each URL, and returns when all are.
func (a *audience) open(ctx context.Context, urls []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(doors)
	for _, url := range urls {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return a.listen(url)
		})
	}
	return g.Wait()
}

// listen opens one stream and reads it on.
func (a *audience) listen(url string) error {
	req, err := http.NewRequestWithContext(a.ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // the status says enough
		return fmt.Errorf("open stream: %s: %s", res.Status, text)
	}
	a.wg.Go(func() {
		defer res.Body.Close()
		a.ended(readStamps(res.Body, a.hear))
	})
	return nil
}

// readStamps reads a stream to its end and has the time of each event heard.
func readStamps(r io.Reader, hear func(time.Time)) error {
	const frame = 1 << 10 // of ours, with room
	lines := bufio.NewReaderSize(r, frame)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		if at, ok := stampOf(line); ok {
			hear(at)
		}
	}
}

// stampOf is the time that a line of an event has for a text.
func stampOf(line []byte) (at time.Time, ok bool) {
	_, text, ok := bytes.Cut(line, []byte(`"text":"`))
	if !ok {
		return at, false
	}
	number, _, ok := bytes.Cut(text, []byte(` "`))
	us, err := strconv.ParseInt(string(number), 10, 64)
	return time.UnixMicro(us), ok && err == nil
}

func (a *audience) hear(at time.Time) {
	age := time.Since(at)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ages.add(max(0, age), nil)
}

// ended notes the end of a stream that nobody closed.
func (a *audience) ended(err error) {
	if a.ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.end == nil {
		a.end = fmt.Errorf("a stream ended: %w", err)
	}
}

func (a *audience) lost() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.end
}

func (a *audience) heard() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.ages.calls)
}

func (a *audience) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ages = newTally()
}

func (a *audience) result() Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	return merge([]*tally{a.ages}, 0)
}
