package ws_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/producer/ws"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

func TestATaskIsSubmittedWatchedAndResumed(t *testing.T) {
	b := setup(t, ws.Params{})
	c := b.dial()
	got := c.ask(api.SocketRequest{Op: api.OpSubmit, Ref: "a", Body: json.RawMessage(hello)})
	if got.Op != api.OpAccepted || got.Ref != "a" || b.minter.Check(got.TaskID, "acme") != nil {
		t.Fatalf("heard %+v", got)
	}
	if s := b.accepted[0]; s.Tenant != "acme" || s.Request.Payload.Text != "hello" || string(s.Body) != hello {
		t.Errorf("accepted %+v", s)
	}
	id := got.TaskID
	b.attempt(id, 1, 3)
	b.attempt(id, 2, 2)
	b.end(id, task.Succeeded)
	var whole []event.Event
	for len(whole) == 0 || !whole[len(whole)-1].Type.Terminal() {
		whole = append(whole, c.event(c.hear()))
	}
	var kinds []string
	for _, e := range whole {
		kinds = append(kinds, string(e.Type))
	}
	if d := cmp.Diff([]string{"queued", "started", "delta", "delta", "delta", "restart", "delta", "delta", "succeeded"}, kinds); d != "" {
		t.Fatal(d)
	}
	if r := whole[len(whole)-1].Result; r == nil || r.Output.Text != "all of it" {
		t.Errorf("the end bears %+v", r)
	}
	for i, e := range whole {
		c := b.dial()
		got := c.ask(api.SocketRequest{Op: api.OpSubscribe, Ref: "r", TaskID: id, After: e.ID.String()})
		if i == len(whole)-1 {
			if got.Op != api.OpUnsubscribed || got.Reason != "ended" || got.Ref != "r" {
				t.Errorf("after the end: %+v", got)
			}
			continue
		}
		if got.Op != api.OpSubscribed || got.TaskID != id {
			t.Errorf("heard %+v", got)
		}
		for _, want := range whole[i+1:] {
			if e := c.event(c.hear()); line(e) != line(want) {
				t.Fatalf("resumed after event %d: %s, want %s", i, line(e), line(want))
			}
		}
	}
}

// TestRandomCutsOverReplicas writes many tasks while clients watch them over
// sockets of two replicas, which are cut at any moment and opened at the other.
func TestRandomCutsOverReplicas(t *testing.T) {
	w := newWorld(t)
	replicas := []*replica{w.serve(ws.Params{}), w.serve(ws.Params{})}
	const clients, tasks = 6, 10
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			var ids []task.ID
			for range tasks {
				ids = append(ids, w.id())
			}
			want := make([][]string, tasks)
			var writing sync.WaitGroup
			for i, id := range ids {
				writing.Go(func() {
					want[i] = []string{"0-1 queued "}
					for attempt := 1; attempt <= 1+rand.IntN(2); attempt++ {
						deltas := rand.IntN(12)
						w.attempt(id, attempt, deltas)
						want[i] = append(want[i], fmt.Sprintf("%s %s ", event.ID{Fence: fence(attempt)}, []event.Type{event.Started, event.Restart}[min(attempt-1, 1)]))
						for seq := 1; seq <= deltas; seq++ {
							want[i] = append(want[i], fmt.Sprintf("%s delta piece %d.%d", event.ID{Fence: fence(attempt), Seq: uint64(seq)}, attempt, seq))
						}
					}
					w.end(id, task.Succeeded)
					want[i] = append(want[i], event.TerminalID(0).String()+" succeeded ")
				})
			}
			got := readAll(t, replicas, ids)
			writing.Wait()
			for i, id := range ids {
				if d := cmp.Diff(want[i], got[id]); d != "" {
					t.Errorf("task %d: %s", i, d)
				}
			}
		})
	}
	wg.Wait()
}

// readAll watches tasks to their ends over sockets that last a few events each.
func readAll(t *testing.T, replicas []*replica, ids []task.ID) map[task.ID][]string {
	got, last, open := map[task.ID][]string{}, map[task.ID]string{}, len(ids)
	for sockets := 0; open > 0; sockets++ {
		c := replicas[sockets%len(replicas)].dial()
		for _, id := range ids {
			if after := last[id]; after != event.TerminalID(0).String() {
				c.send(api.SocketRequest{Op: api.OpSubscribe, TaskID: id, After: after})
			}
		}
		for left := 1 + rand.IntN(40); left > 0 && open > 0; {
			m := c.hear()
			if m.Op != api.OpEvent {
				continue
			}
			e := c.event(m)
			got[e.TaskID], last[e.TaskID] = append(got[e.TaskID], line(e)), e.ID.String()
			left--
			if e.Type.Terminal() {
				open--
			}
		}
		_ = c.conn.CloseNow()
	}
	return got
}

func TestWhatAClientMayNotSay(t *testing.T) {
	b := setup(t, ws.Params{Faults: 100})
	mine, foreign := b.id(), b.minter.New("other", time.Now())
	old := b.minter.New("acme", time.Now().Add(-100*time.Hour))
	for _, tc := range []struct {
		name, key, text string
		code            fault.Code
		param           string
	}{
		{"no JSON", "acme", `hello`, fault.Malformed, ""},
		{"no object", "acme", `[]`, fault.Malformed, ""},
		{"no op", "acme", `{"ref":"r"}`, fault.Malformed, "op"},
		{"an unknown op", "acme", `{"op":"stop","ref":"r"}`, fault.Malformed, "op"},
		{"a name given twice", "acme", `{"op":"ping","ref":"r","op":"ping"}`, fault.Malformed, "op"},
		{"a field of another op", "acme", `{"op":"ping","ref":"r","task_id":"` + string(mine) + `"}`, fault.Malformed, "task_id"},
		{"a field of none", "acme", `{"op":"ping","ref":"r","reff":"x"}`, fault.Malformed, "reff"},
		{"a submit without a body", "acme", `{"op":"submit","ref":"r"}`, fault.Malformed, "body"},
		{"a body without a payload", "acme", `{"op":"submit","ref":"r","body":{"model":"m"}}`, fault.Malformed, "body.payload"},
		{"a field that no body has", "acme", `{"op":"submit","ref":"r","body":{"modle":"m","payload":{"text":"a"}}}`, fault.Malformed, "body.modle"},
		{"a deadline that is none", "acme", `{"op":"submit","ref":"r","body":{"payload":{"text":"a"},"deadline":"soon"}}`, fault.Malformed, "body.deadline"},
		{"a key that is empty", "acme", `{"op":"submit","ref":"r","idempotency_key":"","body":` + hello + `}`, fault.Malformed, "idempotency_key"},
		{"a key that is too long", "acme", `{"op":"submit","ref":"r","idempotency_key":"` + strings.Repeat("é", 200) + `","body":` + hello + `}`, fault.TooLarge, "idempotency_key"},
		{"an invented task", "acme", `{"op":"subscribe","ref":"r","task_id":"task_` + strings.Repeat("0", 48) + `"}`, fault.NotFound, ""},
		{"another tenant's task", "acme", `{"op":"subscribe","ref":"r","task_id":"` + string(foreign) + `"}`, fault.NotFound, ""},
		{"a place that is none", "acme", `{"op":"subscribe","ref":"r","task_id":"` + string(mine) + `","after":"1"}`, fault.Malformed, "after"},
		{"a task of long ago", "acme", `{"op":"subscribe","ref":"r","task_id":"` + string(old) + `"}`, fault.Gone, ""},
		{"to leave another tenant's task", "acme", `{"op":"unsubscribe","ref":"r","task_id":"` + string(foreign) + `"}`, fault.NotFound, ""},
		{"to replace another tenant's task", "acme", `{"op":"interrupt","ref":"r","task_id":"` + string(foreign) + `","body":` + hello + `}`, fault.NotFound, ""},
		{"to submit, as a reader", "acme:read", `{"op":"submit","ref":"r","body":` + hello + `}`, fault.Forbidden, ""},
		{"to stop, as a reader", "acme:read", `{"op":"cancel","ref":"r","task_id":"` + string(mine) + `"}`, fault.Forbidden, ""},
		{"to watch, as a submitter", "acme:submit", `{"op":"subscribe","ref":"r","task_id":"` + string(mine) + `"}`, fault.Forbidden, ""},
		{"to watch what it submits, as a submitter", "acme:submit", `{"op":"submit","ref":"r","body":` + hello + `}`, fault.Forbidden, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := b.dial("Authorization", "Bearer "+tc.key)
			c.say(tc.text)
			got := c.hear()
			if got.Op != api.OpError || got.Error.Type != tc.code || got.Error.Param != tc.param || got.Error.Message == "" {
				t.Errorf("heard %+v %+v", got, got.Error)
			}
			if strings.HasPrefix(tc.text, "{") && got.Ref != "r" && tc.name != "a name given twice" {
				t.Errorf("the answer bears ref %q", got.Ref)
			}
			if pong := c.ask(api.SocketRequest{Op: api.OpPing, Ref: "p"}); pong.Op != api.OpPong || pong.Ref != "p" {
				t.Errorf("afterwards: %+v", pong)
			}
		})
	}
	if len(b.accepted) != 0 || len(b.cancels()) != 0 {
		t.Errorf("%d tasks were accepted and %d stopped", len(b.accepted), len(b.stopped))
	}
	c := b.dial("Authorization", "Bearer acme:submit")
	no := false
	if got := c.ask(api.SocketRequest{Op: api.OpSubmit, Watch: &no, Body: json.RawMessage(hello)}); got.Op != api.OpAccepted {
		t.Errorf("a submitter that does not watch: %+v", got)
	}
}

func TestAClientThatIsNeverReadableIsClosed(t *testing.T) {
	b := setup(t, ws.Params{Faults: 3})
	c := b.dial()
	for range 2 {
		c.say("x")
	}
	c.send(api.SocketRequest{Op: api.OpPing}) // a good one in between: the count begins again
	for range 2 {
		c.say("x")
	}
	if err := c.conn.Write(t.Context(), websocket.MessageBinary, []byte(`{"op":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	heard := ""
	for range 6 {
		heard += " " + string(c.hear().Op)
	}
	if heard != " error error pong error error error" {
		t.Errorf("heard%s", heard)
	}
	if code := c.closed(); code != websocket.StatusPolicyViolation {
		t.Errorf("closed with %d", code)
	}
}

func TestALargeMessageIsReadAndATooLargeOneIsRefused(t *testing.T) {
	b := setup(t, ws.Params{})
	limit := int(b.cfg.BodyLimit)
	body := func(size int) string {
		const rest = len(`{"model":"m","payload":{"text":""}}`)
		return `{"op":"submit","body":{"model":"m","payload":{"text":"` + strings.Repeat("x", size-rest) + `"}}}`
	}
	c := b.dial()
	c.say(body(limit))
	if got := c.hear(); got.Op != api.OpAccepted {
		t.Fatalf("a body of the limit: %+v %+v", got, got.Error)
	}
	for m := c.hear(); c.event(m).Type != event.Queued; m = c.hear() {
	}
	c.say(body(limit + 1))
	if got := c.hear(); got.Op != api.OpError || got.Error.Type != fault.TooLarge {
		t.Errorf("one byte over the limit: %+v %+v", got, got.Error)
	}
	for _, size := range []int{limit + 8<<10, 4 * limit} {
		c := b.dial()
		ctx := t.Context()
		_ = c.conn.Write(ctx, websocket.MessageText, []byte(body(size))) // the far end may not take all of it
		if code := c.closed(); code != websocket.StatusMessageTooBig {
			t.Errorf("a message of %d bytes: closed with %d", size, code)
		}
	}
}

func TestAnInterruptAcceptsFirstAndStopsThen(t *testing.T) {
	b := setup(t, ws.Params{})
	c := b.dial()
	old := c.ask(api.SocketRequest{Op: api.OpSubmit, Body: json.RawMessage(hello)}).TaskID
	c.hear() // queued
	interrupt := api.SocketRequest{Op: api.OpInterrupt, Ref: "i", TaskID: old, IdempotencyKey: "k", Body: json.RawMessage(hello)}

	b.set(func() { b.err = fault.New(fault.Throttled, "too fast") })
	if got := c.ask(interrupt); got.Op != api.OpError || got.Error.Type != fault.Throttled || got.Ref != "i" {
		t.Errorf("refused: %+v", got)
	}
	if len(b.cancels()) != 0 {
		t.Error("a refusal stopped the old task")
	}

	b.set(func() { b.err = nil; b.stopErr = fault.New(fault.Unavailable, "kafka is away") })
	got := c.ask(interrupt)
	if got.Op != api.OpAccepted || got.Replaces != old || got.TaskID == old || got.Ref != "i" {
		t.Fatalf("accepted: %+v", got)
	}
	fresh := got.TaskID
	seen := map[api.Op]api.SocketReply{}
	for range 2 {
		m := c.hear()
		seen[m.Op] = m
	}
	if e := seen[api.OpError]; e.TaskID != old || e.Ref != "i" || e.Error == nil || e.Error.Type != fault.Unavailable {
		t.Errorf("the old task could not be stopped: %+v", e)
	}
	if e := c.event(seen[api.OpEvent]); e.TaskID != fresh || e.Type != event.Queued {
		t.Errorf("the new task's events begin with %+v", e)
	}

	b.set(func() { b.stopErr = nil }) // the client tries again, with its key: the same task
	if got = c.ask(interrupt); got.Op != api.OpAccepted || got.TaskID != fresh || !got.Repeat {
		t.Errorf("again: %+v", got)
	}
	if got = c.hear(); got.Op != api.OpOutcome || got.Ref != "i" || got.Task.TaskID != old || got.Task.Status != task.Cancelled {
		t.Errorf("the outcome: %+v", got)
	}
	if d := cmp.Diff([]task.ID{old}, b.cancels()); d != "" {
		t.Error(d)
	}
}

func TestStoppingIsNotLeavingIsNotDisconnecting(t *testing.T) {
	b := setup(t, ws.Params{})
	c := b.dial()
	id := c.ask(api.SocketRequest{Op: api.OpSubmit, Body: json.RawMessage(hello)}).TaskID
	c.hear()
	if got := c.ask(api.SocketRequest{Op: api.OpUnsubscribe, Ref: "u", TaskID: id}); got.Op != api.OpUnsubscribed || got.Ref != "u" {
		t.Fatalf("heard %+v", got)
	}
	b.attempt(id, 1, 3)
	if got := c.ask(api.SocketRequest{Op: api.OpPing}); got.Op != api.OpPong {
		t.Errorf("after it left the task a client hears %+v", got)
	}
	if err := c.conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	b.await("penstock_producer_sockets_total", "closed")
	if stopped := b.cancels(); len(stopped) != 0 {
		t.Errorf("a closed socket stopped %v", stopped)
	}
	c = b.dial()
	if got := c.ask(api.SocketRequest{Op: api.OpCancel, Ref: "c", TaskID: id}); got.Op != api.OpOutcome || got.Task.Status != task.Cancelled {
		t.Errorf("a cancel: %+v", got)
	}
	if d := cmp.Diff([]task.ID{id}, b.cancels()); d != "" {
		t.Error(d)
	}
}

// await polls until a counter with one label is above zero.
func (r *replica) await(name, label string) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		families, err := r.reg.Gather()
		if err != nil {
			r.t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label && m.GetCounter().GetValue() > 0 {
					return
				}
			}
		}
		<-tick.C
	}
	r.t.Fatalf("%s{%s} stays at zero", name, label)
}

func TestOnlySoMuchIsUnderWayAtOnce(t *testing.T) {
	b := setup(t, ws.Params{InFlight: 2})
	hold := make(chan struct{})
	b.set(func() { b.hold = hold })
	c := b.dial()
	for _, ref := range []string{"1", "2", "3"} {
		c.send(api.SocketRequest{Op: api.OpSubmit, Ref: ref, Body: json.RawMessage(hello)})
	}
	if got := c.hear(); got.Op != api.OpError || got.Ref != "3" || got.Error.Type != fault.Throttled || got.RetryMS == 0 {
		t.Errorf("the third: %+v", got)
	}
	close(hold)
	for accepted := 0; accepted < 2; {
		if c.hear().Op == api.OpAccepted {
			accepted++
		}
	}
}

func TestADrainAnswersWhatIsUnderWayAndAsksToReconnect(t *testing.T) {
	b := setup(t, ws.Params{})
	hold := make(chan struct{})
	b.set(func() { b.hold = hold })
	c, quiet := b.dial(), b.dial()
	// Not watched: the sockets end each at its moment, and until then there are events.
	c.send(api.SocketRequest{Op: api.OpSubmit, Ref: "late", Watch: new(false), Body: json.RawMessage(hello)})
	c.send(api.SocketRequest{Op: api.OpPing})
	c.hear() // so that the submit is under way
	var wg sync.WaitGroup
	wg.Go(b.stop)
	if got := quiet.hear(); got.Op != api.OpReconnect || got.Reason != "drain" || got.RetryMS < 1000 {
		t.Errorf("heard %+v", got)
	}
	if code := quiet.closed(); code != websocket.StatusServiceRestart {
		t.Errorf("closed with %d", code)
	}
	_, res, err := b.try()
	if err == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("a new socket while it drains: %v, %v", res, err)
	}
	close(hold)
	if got := c.hear(); got.Op != api.OpAccepted || got.Ref != "late" {
		t.Errorf("heard %+v", got)
	}
	if got := c.hear(); got.Op != api.OpReconnect {
		t.Errorf("heard %+v", got)
	}
	if code := c.closed(); code != websocket.StatusServiceRestart {
		t.Errorf("closed with %d", code)
	}
	wg.Wait()
}

func TestAnOldSocketIsAskedToReconnect(t *testing.T) {
	b := setup(t, ws.Params{Lifetime: 50 * time.Millisecond})
	c := b.dial()
	if got := c.hear(); got.Op != api.OpReconnect || got.Reason != "lifetime" {
		t.Errorf("heard %+v", got)
	}
	if code := c.closed(); code != websocket.StatusServiceRestart {
		t.Errorf("closed with %d", code)
	}
}

func TestARevokedKeyLosesItsSocket(t *testing.T) {
	b := setup(t, ws.Params{Recheck: 10 * time.Millisecond})
	c := b.dial()
	for range 3 {
		if got := c.ask(api.SocketRequest{Op: api.OpPing}); got.Op != api.OpPong {
			t.Fatalf("heard %+v", got)
		}
	}
	b.set(func() { b.revoked = true })
	if code := c.closed(); code != websocket.StatusPolicyViolation {
		t.Errorf("closed with %d", code)
	}
	b.await("penstock_producer_sockets_total", "revoked")
}

// raw opens a socket over a connection that the test reads itself, or not.
func (r *replica) raw() net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprint(conn, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer acme\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 101" {
		r.t.Fatalf("%q, %v", head, err)
	}
	return conn
}

// text is a short client frame, masked with zeros.
func text(s string) []byte {
	return append([]byte{0x81, 0x80 | byte(len(s)), 0, 0, 0, 0}, s...)
}

func TestAClientWithoutAPulseIsNoticed(t *testing.T) {
	b := setup(t, ws.Params{Heartbeat: 20 * time.Millisecond})
	b.raw()
	b.await("penstock_producer_sockets_total", "gone")
}

func TestAMessageThatNeverEndsIsCutOff(t *testing.T) {
	b := setup(t, ws.Params{MessageTime: 50 * time.Millisecond})
	conn := b.raw()
	if _, err := conn.Write(text(`{"op":"ping"}`)[:10]); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(rest), "a message came too slowly") {
		t.Errorf("%q, %v", rest, err)
	}
	b.await("penstock_producer_sockets_total", "refused")
}

func TestAClientThatDoesNotReadIsCut(t *testing.T) {
	b := setup(t, ws.Params{WriteTimeout: 100 * time.Millisecond})
	conn := b.raw()
	id := b.id()
	b.attempt(id, 1, 0)
	for seq := 1; seq <= 64; seq++ {
		b.say(id, 1, seq, strings.Repeat("x", 256<<10))
	}
	if _, err := conn.Write(text(`{"op":"subscribe","task_id":"` + string(id) + `"}`)); err != nil {
		t.Fatal(err)
	}
	b.await("penstock_producer_sockets_total", "cut")
}

func TestOnlySoManyTasksAreWatched(t *testing.T) {
	b := setup(t, ws.Params{})
	c := b.dial()
	var ids []task.ID
	answers := func(want int, of api.Op) {
		t.Helper()
		for n := 0; n < want; {
			switch m := c.hear(); m.Op {
			case of:
				n++
			case api.OpEvent:
			default:
				t.Fatalf("heard %+v %+v", m, m.Error)
			}
		}
	}
	for range api.MaxWatched {
		ids = append(ids, b.id())
		c.send(api.SocketRequest{Op: api.OpSubscribe, TaskID: ids[len(ids)-1]})
	}
	answers(len(ids), api.OpSubscribed)
	c.send(api.SocketRequest{Op: api.OpSubscribe, TaskID: b.id()})
	answers(1, api.OpError)
	c.send(api.SocketRequest{Op: api.OpSubscribe, TaskID: ids[0]}) // twice
	answers(1, api.OpError)
	b.end(ids[7], task.Succeeded) // its place is free again
	for m := c.hear(); m.Op != api.OpEvent || !c.event(m).Type.Terminal(); m = c.hear() {
	}
	c.send(api.SocketRequest{Op: api.OpSubscribe, TaskID: b.id()})
	answers(1, api.OpSubscribed)
}

func TestSocketsAreCapped(t *testing.T) {
	b := setup(t, ws.Params{Sockets: 3, PerTenant: 2})
	b.dial()
	b.dial()
	refused := func(want int, headers ...string) {
		t.Helper()
		_, res, err := b.try(headers...)
		if err == nil || res.StatusCode != want || res.Header.Get("Retry-After") == "" {
			t.Errorf("%v, %v", res, err)
		}
	}
	refused(http.StatusTooManyRequests)
	b.dial("Authorization", "Bearer other")
	refused(http.StatusServiceUnavailable, "Authorization", "Bearer third")
	if n := testutil.CollectAndCount(b.reg, "penstock_producer_sockets"); n != 1 {
		t.Errorf("%d gauges", n)
	}
}

func TestWhoMayConnect(t *testing.T) {
	b := setup(t, ws.Params{Origins: []string{"chat.example.com", "https://*.example.org"}})
	host := strings.TrimPrefix(b.url, "http://")
	for _, tc := range []struct {
		name    string
		headers []string
		status  int
		code    fault.Code
	}{
		{"a client that is no browser", nil, 101, ""},
		{"a page of our own host", []string{"Origin", "http://" + host}, 101, ""},
		{"a page of a host that is named", []string{"Origin", "https://chat.example.com"}, 101, ""},
		{"a page of a pattern", []string{"Origin", "https://a.example.org"}, 101, ""},
		{"a page of a pattern, but without TLS", []string{"Origin", "http://a.example.org"}, 403, fault.Forbidden},
		{"a page of anybody else", []string{"Origin", "https://evil.example"}, 403, fault.Forbidden},
		{"a page of nowhere", []string{"Origin", "null"}, 403, fault.Forbidden},
		{"a stranger", []string{"Authorization", ""}, 401, fault.Unauthorized},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, res, err := b.try(tc.headers...)
			if conn != nil {
				defer func() { _ = conn.CloseNow() }()
			}
			if res == nil || res.StatusCode != tc.status {
				t.Fatalf("%v, %v", res, err)
			}
			if tc.code != "" {
				checkEnvelope(t, res, tc.code)
			}
		})
	}
	t.Run("a request that is no handshake", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/v1/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer acme")
		res, err := http.DefaultClient.Do(req)
		if err != nil || res.StatusCode != http.StatusUpgradeRequired || res.Header.Get("Upgrade") != "websocket" {
			t.Fatalf("%v, %v", res, err)
		}
		defer res.Body.Close()
		checkEnvelope(t, res, fault.Malformed)
	})
}

func checkEnvelope(t *testing.T, res *http.Response, code fault.Code) {
	t.Helper()
	var e api.Envelope
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil || e.Error == nil || e.Error.Type != code || e.Code != res.StatusCode {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestAFrozenProjectionIsAskedNowAndThen(t *testing.T) {
	b := setup(t, ws.Params{StoreTimeout: 20 * time.Millisecond})
	b.set(func() { b.frozen = true })
	c := b.dial()
	const tasks = 50
	for range tasks {
		c.send(api.SocketRequest{Op: api.OpSubscribe, TaskID: b.id()})
	}
	for range tasks {
		if got := c.hear(); got.Op != api.OpError || got.Error.Type != fault.Unavailable || got.RetryMS == 0 {
			t.Fatalf("heard %+v", got)
		}
	}
	b.set(func() {
		if b.waited > tasks/5 {
			t.Errorf("it was waited for %d times", b.waited)
		}
	})
}

func TestATicketOpensASocket(t *testing.T) {
	b := setup(t, ws.Params{Recheck: 10 * time.Millisecond})
	mine, other := b.id(), b.id()
	sign := func(g ticket.Grant) string {
		t.Helper()
		text, err := b.tickets.Sign(g)
		if err != nil {
			t.Fatal(err)
		}
		return "?ticket=" + text
	}
	soon := time.Now().Add(time.Second).Truncate(time.Second)

	b.query = sign(ticket.Grant{KeyID: "acme", Task: mine, Expires: time.Now().Add(time.Hour)})
	c := b.dial("Authorization", "")
	if got := c.ask(api.SocketRequest{Op: api.OpSubscribe, TaskID: mine}); got.Op != api.OpSubscribed {
		t.Errorf("its own task: %+v %+v", got, got.Error)
	}
	c.hear() // queued
	for _, m := range []api.SocketRequest{
		{Op: api.OpSubscribe, TaskID: other},
		{Op: api.OpCancel, TaskID: mine},
		{Op: api.OpSubmit, Body: json.RawMessage(hello)},
	} {
		if got := c.ask(m); got.Op != api.OpError || got.Error.Type != fault.Forbidden {
			t.Errorf("%s: %+v", m.Op, got)
		}
	}

	b.query = sign(ticket.Grant{KeyID: "acme", Expires: soon})
	c = b.dial("Authorization", "")
	for !time.Now().After(soon) { // its time is for connecting
		if got := c.ask(api.SocketRequest{Op: api.OpPing}); got.Op != api.OpPong {
			t.Fatalf("%+v", got)
		}
	}
	if got := c.ask(api.SocketRequest{Op: api.OpSubmit, Body: json.RawMessage(hello)}); got.Op != api.OpAccepted {
		t.Errorf("a submit: %+v %+v", got, got.Error)
	}
	if _, res, err := b.try("Authorization", ""); err == nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("an old ticket: %v, %v", res, err)
	}
	b.set(func() { b.revoked = true })
	if code := c.closed(); code != websocket.StatusPolicyViolation {
		t.Errorf("closed with %d", code)
	}
}
