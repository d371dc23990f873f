package bare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Events is the yardstick of streams: Server-Sent Events on net/http alone, with
// the heartbeat that every server of them needs and nothing else. Each event goes
// to a random stream. It is safe for concurrent use.
type Events struct {
	// Plan is when events that it makes itself are due, from now on, at a rate for a
	// length.
	Plan func(rate float64, length time.Duration) []time.Duration

	mu   sync.Mutex // guards open
	open []chan time.Time
}

// heartbeat is the one of the results service.
const heartbeat = 15 * time.Second

// Frame is an event as the yardstick writes it, with the time in µs since 1970
// where Penstock's have the text.
func Frame(b []byte, at time.Time) []byte {
	b = append(b, "event: delta\ndata: {\"type\":\"delta\",\"text\":\""...)
	b = strconv.AppendInt(b, at.UnixMicro(), 10)
	return append(b, " \"}\n\n"...)
}

// Channel is where Feed takes events from.
const Channel = "penstock.bench.events"

// Feed hands on what others publish on Channel of Redis until ctx is done, as a
// server does at least that is one of many. An event is its stamp, the time in µs
// since 1970.
func (e *Events) Feed(ctx context.Context, rdb redis.UniversalClient) error {
	sub := rdb.Subscribe(ctx, Channel)
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })() // frees ReceiveMessage
	defer sub.Close()
	for {
		m, err := sub.ReceiveMessage(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was to end
		}
		if err != nil {
			return fmt.Errorf("receive events: %w", err)
		}
		at, err := stampOf(m.Payload)
		if err != nil {
			return err
		}
		select {
		case e.anyone() <- at:
		case <-ctx.Done():
		}
	}
}

func stampOf(text string) (time.Time, error) {
	us, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read event: %w", err)
	}
	return time.UnixMicro(us), nil
}

// publish answers POST /publish, of which the body is a stamp as of Feed, once the
// event is on its way.
func (e *Events) publish(w http.ResponseWriter, r *http.Request) {
	const digits = 20
	body, err := io.ReadAll(io.LimitReader(r.Body, digits))
	if err != nil {
		return // the client went away
	}
	at, err := stampOf(string(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case e.anyone() <- at:
		w.WriteHeader(http.StatusNoContent)
	case <-r.Context().Done(): // nobody is there, or somebody does not read
	}
}

// stream answers GET /events until the client goes away.
func (e *Events) stream(w http.ResponseWriter, r *http.Request) {
	events := make(chan time.Time, 1) // one may be on its way
	e.join(events)
	defer e.leave(events)
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte(": open\n\n")) // without a first frame its buffer would be no memory until the first heartbeat
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	frame := []byte(nil)
	for rc.Flush() == nil {
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			frame = append(frame[:0], ": ping\n\n"...)
		case at := <-events:
			frame = Frame(frame[:0], at)
		}
		if _, err := w.Write(frame); err != nil {
			return
		}
	}
}

func (e *Events) join(c chan time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open = append(e.open, c)
}

func (e *Events) leave(c chan time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.open, c)
	e.open = slices.Delete(e.open, i, i+1)
}

// anyone is the channel of a random stream; nil if there is none.
func (e *Events) anyone() chan time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.open) == 0 {
		return nil
	}
	return e.open[rand.IntN(len(e.open))]
}

// emit answers POST /emit?rate=500&for=20s once all events are on their way, and
// says how many they were.
func (e *Events) emit(w http.ResponseWriter, r *http.Request) {
	rate, err := strconv.ParseFloat(r.FormValue("rate"), 64)
	length, err2 := time.ParseDuration(r.FormValue("for"))
	if errors.Join(err, err2) != nil || rate <= 0 {
		http.Error(w, "want rate and for", http.StatusBadRequest)
		return
	}
	began, sent := time.Now(), 0
	for _, due := range e.Plan(rate, length) {
		timer := time.NewTimer(time.Until(began.Add(due)))
		select {
		case <-r.Context().Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		select {
		case e.anyone() <- time.Now():
			sent++
		case <-r.Context().Done(): // nobody is there, or somebody does not read
			return
		}
	}
	fmt.Fprintln(w, sent)
}

// Serve answers on a listener until ctx is done, over HTTP/1.1 and h2c.
func (e *Events) Serve(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /events", e.stream)
	mux.HandleFunc("POST /emit", e.emit)
	mux.HandleFunc("POST /publish", e.publish)
	mux.HandleFunc("POST /collect", func(http.ResponseWriter, *http.Request) { runtime.GC() })
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return serve(ctx, ln, &http.Server{Handler: mux, Protocols: protocols, ReadHeaderTimeout: 5 * time.Second})
}

func serve(ctx context.Context, ln net.Listener, srv *http.Server) error {
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
