//go:build e2e

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// longStory is a streamed task of some seconds.
func longStory() api.SubmitRequest {
	return api.SubmitRequest{
		Model: "sim-chat", Payload: task.Payload{Messages: []byte(`[{"role":"user","content":"a long story"}]`)},
		Params: task.Params{"max_tokens": []byte("100")}, Stream: true,
	}
}

// told is what a client has of one task.
type told struct {
	t     *testing.T
	last  event.ID
	text  string
	whole *task.Output

	restartable bool // its worker may die
	restarts    int
}

func (c *told) hear(data []byte) event.Event {
	c.t.Helper()
	var e event.Event
	if err := json.Unmarshal(data, &e); err != nil {
		c.t.Fatalf("%v in %.200s", err, data)
	}
	switch e.Type {
	case event.Restart, event.Gap, event.Snapshot:
		if e.Type != event.Restart || !c.restartable {
			c.t.Errorf("the stream says %s", e.Type)
		}
		c.restarts, c.text = c.restarts+1, "" // and begins with what this event has
	case event.Reconnect:
		return e
	}
	if !c.last.Less(e.ID) {
		c.t.Errorf("%s comes after %s", e.ID, c.last)
	}
	c.last, c.text = e.ID, c.text+e.Text
	if e.Type == event.Succeeded {
		c.whole = e.Result.Output
	}
	return e
}

func (c *told) check() {
	c.t.Helper()
	if c.whole == nil || c.text == "" || c.text != c.whole.Text {
		c.t.Errorf("the pieces make\n%q, the output is\n%+v", c.text, c.whole)
	}
}

// stream reads server-sent events until the connection ends, whichever way.
func (c *told) stream(ctx context.Context, base string, id task.ID, each func()) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/tasks/"+string(id)+"/events", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if !c.last.IsZero() {
		req.Header.Set("Last-Event-ID", c.last.String())
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %s", req.URL, res.Status)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			c.hear([]byte(data))
			each()
		}
	}
}

// TestAStreamOutlivesItsResultsService kills the results service that a client
// reads from; the client goes on at the other one.
func TestAStreamOutlivesItsResultsService(t *testing.T) {
	p := params(t)
	p.Results, p.Simulate = 2, []string{"--token", "50ms"}
	s := start(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	accepted, err := s.Client().Submit(ctx, longStory(), "")
	if err != nil {
		t.Fatal(err)
	}
	c, killed := &told{t: t}, false
	c.stream(ctx, s.Results[0].URL, accepted.TaskID, func() {
		if !killed && len(c.text) > 100 {
			killed = true
			if err := s.Results[0].Kill9(); err != nil {
				t.Error(err)
			}
		}
	})
	if !killed || c.whole != nil {
		t.Fatalf("killed %v; the end was seen before: %v", killed, c.whole != nil)
	}
	t.Logf("killed after %s, with %d bytes of text", c.last, len(c.text))
	c.stream(ctx, s.Results[1].URL, accepted.TaskID, func() {})
	c.check()
}

// socket reads one socket until it ends. Each hears the server's messages.
func (c *told) socket(ctx context.Context, base string, first api.SocketRequest, each func(api.SocketReply)) {
	c.t.Helper()
	conn, _, err := websocket.Dial(ctx, base+"/v1/ws", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	text, err := json.Marshal(first)
	if err == nil {
		err = conn.Write(ctx, websocket.MessageText, text)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	for c.whole == nil {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return
		}
		var m api.SocketReply
		if err := json.Unmarshal(text, &m); err != nil {
			c.t.Fatal(err)
		}
		switch m.Op {
		case api.OpEvent:
			c.hear(m.Event)
		case api.OpError:
			c.t.Errorf("the server says %+v", m.Error)
		}
		each(m)
	}
}

// TestASocketOutlivesItsProducer kills the producer that a client has submitted
// over and watches at; the task goes on, and the client resumes at the other.
func TestASocketOutlivesItsProducer(t *testing.T) {
	p := params(t)
	p.Producers, p.Simulate = 2, []string{"--token", "50ms"}
	s := start(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	body, err := json.Marshal(longStory())
	if err != nil {
		t.Fatal(err)
	}
	submit := api.SocketRequest{Op: api.OpSubmit, IdempotencyKey: "story-" + time.Now().Format(time.RFC3339Nano), Body: body}
	c, killed := &told{t: t}, false
	var id task.ID
	c.socket(ctx, s.Producers[0].URL, submit, func(m api.SocketReply) {
		if m.Op == api.OpAccepted {
			id = m.TaskID
		}
		if !killed && len(c.text) > 100 {
			killed = true
			if err := s.Producers[0].Kill9(); err != nil {
				t.Error(err)
			}
		}
	})
	if !killed || c.whole != nil {
		t.Fatalf("killed %v; the end was seen before: %v", killed, c.whole != nil)
	}
	c.socket(ctx, s.Producers[1].URL, api.SocketRequest{Op: api.OpSubscribe, TaskID: id, After: c.last.String()}, func(api.SocketReply) {})
	c.check()
	again := &told{t: t}
	again.socket(ctx, s.Producers[1].URL, submit, func(m api.SocketReply) {
		if m.Op == api.OpAccepted && (m.TaskID != id || !m.Repeat) {
			t.Errorf("the same submit again is %+v, want a repeat of %s", m, id)
		}
	})
	again.check()
}
