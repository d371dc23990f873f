package dev_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// socket is a client that holds every message, either way, to its schema.
type socket struct {
	t                *testing.T
	conn             *websocket.Conn
	request, replies *jsonschema.Schema
	heard            map[api.Op]bool
}

func (k *contract) dial(t *testing.T, s *dev.Stack) *socket {
	t.Helper()
	c := &socket{t: t, heard: map[api.Op]bool{}}
	for name, to := range map[string]**jsonschema.Schema{"socketrequest": &c.request, "socketreply": &c.replies} {
		schema, err := k.compiler.Compile("https://penstock.dev/schema/v1/" + name + ".schema.json")
		if err != nil {
			t.Fatal(err)
		}
		*to = schema
	}
	var err error
	if c.conn, _, err = websocket.Dial(t.Context(), s.URL()+"/v1/ws", nil); err != nil {
		t.Fatal(err)
	}
	c.conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = c.conn.CloseNow() })
	return c
}

func (c *socket) check(schema *jsonschema.Schema, text []byte) {
	c.t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		c.t.Errorf("%v\n%.500s", err, text)
	}
}

func (c *socket) say(m api.SocketRequest) {
	c.t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	c.check(c.request, text)
	if err := c.conn.Write(c.t.Context(), websocket.MessageText, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *socket) hear() (api.SocketReply, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	var m api.SocketReply
	_, text, err := c.conn.Read(ctx)
	if err != nil {
		return m, err
	}
	c.check(c.replies, text)
	if err := json.Unmarshal(text, &m); err != nil {
		c.t.Fatal(err)
	}
	c.heard[m.Op] = true
	return m, nil
}

// until hears messages up to one that ends the wait.
func (c *socket) until(last func(api.SocketReply, event.Event) bool) {
	c.t.Helper()
	for {
		m, err := c.hear()
		if err != nil {
			c.t.Fatal(err)
		}
		var e event.Event
		if m.Op == api.OpEvent {
			if err := json.Unmarshal(m.Event, &e); err != nil {
				c.t.Fatal(err)
			}
		}
		if last(m, e) {
			return
		}
	}
}

// story is a submit of that many tokens.
func story(tokens string) json.RawMessage {
	return json.RawMessage(`{"model":"sim-chat","payload":{"messages":[{"role":"user","content":"a story"}]},"params":{"max_tokens":` + tokens + `},"stream":true}`)
}

// TestASocketFromEndToEnd uses every op, and holds each message to its schema.
func TestASocketFromEndToEnd(t *testing.T) {
	_, s, stop := run(t, dev.DefaultConfig())
	c := openContract(t).dial(t, s)

	c.say(api.SocketRequest{Op: api.OpSubmit, Ref: "a", Body: story("16")})
	var text string
	var whole *task.Output
	var id task.ID
	c.until(func(m api.SocketReply, e event.Event) bool {
		if m.Op == api.OpAccepted {
			id = m.TaskID
		}
		if text += e.Text; e.Type == event.Succeeded {
			whole = e.Result.Output
		}
		return e.Type.Terminal()
	})
	if whole == nil || text == "" || text != whole.Text {
		t.Errorf("the pieces make %q, the output is %+v", text, whole)
	}
	c.say(api.SocketRequest{Op: api.OpSubscribe, Ref: "b", TaskID: id, After: event.TerminalID(0).String()})
	c.until(func(m api.SocketReply, _ event.Event) bool { return m.Op == api.OpUnsubscribed && m.Ref == "b" })
	c.say(api.SocketRequest{Op: api.OpSubscribe, Ref: "c", TaskID: id})
	c.until(func(_ api.SocketReply, e event.Event) bool { return e.Type == event.Succeeded })

	t.Run("an interrupt stops the running task and runs another", func(t *testing.T) {
		c.say(api.SocketRequest{Op: api.OpSubmit, Ref: "long", Body: story("1000")})
		var long, fresh task.ID
		c.until(func(m api.SocketReply, e event.Event) bool {
			if m.Op == api.OpAccepted {
				long = m.TaskID
			}
			return e.Type == event.Delta
		})
		c.say(api.SocketRequest{Op: api.OpInterrupt, Ref: "i", TaskID: long, Body: story("4")})
		ends := map[task.ID]event.Type{}
		outcome := task.Status("")
		c.until(func(m api.SocketReply, e event.Event) bool {
			switch {
			case m.Op == api.OpAccepted && m.Replaces == long:
				fresh = m.TaskID
			case m.Op == api.OpOutcome && m.Ref == "i":
				outcome = m.Task.Status
			case e.Type.Terminal():
				ends[e.TaskID] = e.Type
			}
			return len(ends) == 2 && outcome != ""
		})
		if ends[long] != event.Cancelled || outcome != task.Cancelled || ends[fresh] != event.Succeeded {
			t.Errorf("the ends are %v, the outcome is %s", ends, outcome)
		}
	})

	c.say(api.SocketRequest{Op: api.OpSubmit, Ref: "d", Body: story("1000")})
	c.until(func(m api.SocketReply, e event.Event) bool { id = m.TaskID; return m.Op == api.OpAccepted })
	c.say(api.SocketRequest{Op: api.OpUnsubscribe, Ref: "e", TaskID: id})
	c.until(func(m api.SocketReply, _ event.Event) bool { return m.Op == api.OpUnsubscribed && m.Ref == "e" })
	c.say(api.SocketRequest{Op: api.OpCancel, Ref: "f", TaskID: id})
	c.until(func(m api.SocketReply, _ event.Event) bool { return m.Op == api.OpOutcome && m.Ref == "f" })
	c.say(api.SocketRequest{Op: api.OpPing, Ref: "g"})
	c.until(func(m api.SocketReply, _ event.Event) bool { return m.Op == api.OpPong && m.Ref == "g" })
	c.say(api.SocketRequest{Op: api.OpCancel, Ref: "h", TaskID: task.ID("task_" + strings.Repeat("0", 48))})
	c.until(func(m api.SocketReply, _ event.Event) bool {
		return m.Op == api.OpError && m.Ref == "h" && m.Error.Type == fault.NotFound
	})

	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	c.until(func(m api.SocketReply, _ event.Event) bool { return m.Op == api.OpReconnect })
	if _, err := c.hear(); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("closed with %v", err)
	}
	<-stopped
	_, said := api.Ops()
	for _, op := range said {
		if !c.heard[op] {
			t.Errorf("the server never said %s", op)
		}
	}
}
