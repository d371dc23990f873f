package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/tmaxmax/go-sse"

	"github.com/penstock/penstock/schema/event"
)

// Watcher reads the event stream of tasks, one connection for each, until
// their terminal. It hands every frame to the book as it came, so that what is
// sent twice is seen twice. A broken connection is resumed at the next results
// service, after the last id seen.
type Watcher struct {
	// OnEvent is called with every event as it arrives, from many goroutines. It
	// may be set before the first Watch.
	OnEvent func(Entry, event.Event)

	doors Doors
	book  *Book
	http  *http.Client
	ctx   context.Context // of all connections; ended by Close
	stop  context.CancelFunc
	slots chan struct{} // a semaphore: the connections that may be open
	wg    sync.WaitGroup
}

// maxWatched bounds the streams that are open at once; more wait.
const maxWatched = 2_000

// NewWatcher returns a watcher that watches nothing yet.
func NewWatcher(ctx context.Context, d Doors, b *Book) *Watcher {
	w := &Watcher{doors: d, book: b, slots: make(chan struct{}, maxWatched)}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true
	w.http = &http.Client{Transport: t}
	w.ctx, w.stop = context.WithCancel(ctx)
	return w
}

// Watch follows a task from its first event on, in the background.
func (w *Watcher) Watch(e Entry) {
	w.book.watching(e)
	w.wg.Go(func() {
		select {
		case w.slots <- struct{}{}:
			defer func() { <-w.slots }()
			w.follow(e)
		case <-w.ctx.Done():
		}
	})
}

// Wait returns once every stream has shown its terminal, or ctx is done.
func (w *Watcher) Wait(ctx context.Context) error {
	done := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() { w.wg.Wait(); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the streams: %w", context.Cause(ctx))
	}
}

// Close ends every connection.
func (w *Watcher) Close() {
	w.stop()
	w.wg.Wait()
	w.http.CloseIdleConnections()
}

// errGone is an answer that no repetition changes.
var errGone = errors.New("the stream was refused for good")

func (w *Watcher) follow(e Entry) {
	var last event.ID
	for n := e.N; w.ctx.Err() == nil; n++ {
		done, err := w.read(e, w.doors.Results[n%len(w.doors.Results)], &last)
		if done {
			return
		}
		if errors.Is(err, errGone) {
			w.book.refusedStream(e, err)
			return
		}
		if wait(w.ctx, retryLeast) != nil {
			return
		}
	}
}

// read is one connection.
func (w *Watcher) read(e Entry, base string, last *event.ID) (done bool, err error) {
	body, err := w.open(e, base, *last)
	if err != nil || body == nil {
		return body == nil && err == nil, err
	}
	defer body.Close()
	for frame, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: 16 << 20}) {
		if err != nil {
			return false, err
		}
		if frame.Data == "" {
			continue
		}
		ev, err := decode(frame)
		if err != nil {
			return false, err
		}
		if w.OnEvent != nil {
			w.OnEvent(e, ev)
		}
		if *last, done = w.book.watched(e, ev); done {
			return true, nil
		}
	}
	return false, io.ErrUnexpectedEOF
}

// decode reads the event of a frame, by another reader of streams than the
// client's: one does not hide the other's mistakes.
func decode(frame sse.Event) (event.Event, error) {
	var e event.Event
	if err := json.Unmarshal([]byte(frame.Data), &e); err != nil {
		return e, fmt.Errorf("decode event: %w", err)
	}
	if e.ID.IsZero() && frame.LastEventID != "" {
		id, err := event.ParseID(frame.LastEventID)
		if err != nil {
			return e, fmt.Errorf("event id %q: %w", frame.LastEventID, err)
		}
		e.ID = id
	}
	if e.Type == "" {
		e.Type = event.Type(frame.Type)
	}
	return e, nil
}

// open asks for the stream. A nil body without an error: the terminal was
// among what we have seen.
func (w *Watcher) open(e Entry, base string, last event.ID) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, base+"/v1/tasks/"+string(e.ID)+"/events", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if key := w.doors.Keys[e.Tenant]; key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if !last.IsZero() {
		req.Header.Set("Last-Event-ID", last.String())
	}
	res, err := w.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 1<<16) // so that the connection can be used again
	switch res.StatusCode {
	case http.StatusNoContent:
		return nil, nil
	case http.StatusNotFound, http.StatusGone, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("%w: %s", errGone, res.Status)
	}
	return nil, errors.New(res.Status)
}

// refusedStream notes that the stream of an accepted task was answered as if
// there were no such task.
func (b *Book) refusedStream(e Entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.find("I1", e.ID, "its stream is "+err.Error())
}
