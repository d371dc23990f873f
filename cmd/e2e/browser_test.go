//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/penstock/penstock/cmd/faults/proxy"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// opened is what a page does with a stream or a socket of a task: it notes how
// often it was opened, each event, the text, and the end.
const opened = `
window.told = {opens: 0, refused: 0, text: "", ids: [], odd: [], end: ""};
window.hear = (type, id, e) => {
  if (id) told.ids.push(id);
  if (type === "delta") told.text += e.text || "";
  if (type === "succeeded") told.end = e.result.output.text;
  if (["restart", "gap", "snapshot", "failed", "dead"].includes(type)) told.odd.push(type);
};
`

// overSSE opens an EventSource with a ticket that the page asks for.
const overSSE = `(async () => {` + opened + `
  const ticket = (await (await fetch("/v1/tasks/%[1]s/ticket", {method: "POST"})).json()).data;
  window.source = new EventSource("/v1/tasks/%[1]s/events?ticket=" + encodeURIComponent(ticket.ticket));
  source.onopen = () => told.opens++;
  for (const type of ["delta", "restart", "gap", "snapshot", "succeeded", "failed", "dead"])
    source.addEventListener(type, (m) => hear(type, m.lastEventId, JSON.parse(m.data)));
})(), ""`

// overSocket subscribes over a WebSocket, and again after the last event
// whenever it is cut. Each socket has a ticket of its own.
const overSocket = `(async () => {` + opened + `
  const connect = async () => {
    let ticket;
    try { ticket = (await (await fetch("/v1/ws/ticket", {method: "POST"})).json()).data.ticket; }
    catch { return setTimeout(connect, 100); }
    const socket = new WebSocket(location.origin.replace("http", "ws") + "/v1/ws?ticket=" + encodeURIComponent(ticket));
    socket.onopen = () => {
      told.opens++;
      socket.send(JSON.stringify({op: "subscribe", task_id: "%[1]s", after: told.ids.at(-1)}));
    };
    socket.onmessage = (m) => {
      const said = JSON.parse(m.data);
      if (said.op === "event") hear(said.event.type, said.event.id, said.event);
      if (said.op === "error") told.odd.push(said.error.type);
    };
    socket.onclose = () => { if (!told.end) setTimeout(connect, 100); };
  };
  await connect();
})(), ""`

// TestABrowserResumesAStream watches a task from a page, by EventSource and by
// WebSocket, cuts the page's connections in the middle of the answer, and
// expects the whole of it, nothing twice.
func TestABrowserResumesAStream(t *testing.T) {
	dev := startDev(t)
	base, err := url.Parse(dev.cl.API())
	if err != nil {
		t.Fatal(err)
	}
	cable, err := proxy.Listen(base.Host, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cable.Close() })
	window := browser(t)
	for name, script := range map[string]string{"EventSource": overSSE, "WebSocket": overSocket} {
		t.Run(name, func(t *testing.T) {
			p := page{t, window}
			id := dev.tell(t)
			p.do(chromedp.Navigate("http://"+cable.Addr()+"/chat"), chromedp.WaitVisible("#send"))
			p.text(fmt.Sprintf(script, id))
			p.until(`window.told && told.text.length > 100`)
			if p.text(`told.end`) != "" {
				t.Fatal("the answer ended before it could be cut")
			}
			cable.Reset()
			p.until(`told.end !== ""`)
			if opens := p.text(`String(told.opens)`); opens != "2" {
				t.Errorf("it was opened %s times", opens)
			}
			if odd := p.text(`told.odd.join()`); odd != "" {
				t.Errorf("it was told %s", odd)
			}
			if twice := p.text(`String(told.ids.length - new Set(told.ids).size)`); twice != "0" {
				t.Errorf("%s events came twice", twice)
			}
			got, err := dev.cl.Task(t.Context(), id, 10*time.Second)
			if err != nil || got.Output == nil {
				t.Fatalf("%+v, %v", got, err)
			}
			if text := p.text(`told.text`); text != got.Output.Text || p.text(`told.end`) != text {
				t.Errorf("the pieces make\n%q, the output is\n%q", text, got.Output.Text)
			}
			if name == "EventSource" { // which comes back once more, is told that there is no more, and leaves it at that
				p.until(`source.readyState === EventSource.CLOSED`)
			}
		})
	}
	t.Run("pages from elsewhere are kept out", func(t *testing.T) { keptOut(t, dev, window) })
}

// keptOut opens streams from a page of another origin.
func keptOut(t *testing.T, dev devProcess, window context.Context) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>elsewhere</title>"))
	}))
	defer elsewhere.Close()
	p := page{t, window}
	res, err := http.Post(dev.cl.API()+"/v1/tasks/"+string(dev.tell(t))+"/ticket", "", nil) //nolint:noctx // of this machine
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var ticket struct{ Data api.Ticket }
	if err := json.NewDecoder(res.Body).Decode(&ticket); err != nil || ticket.Data.URL == "" {
		t.Fatalf("%s, %+v, %v", res.Status, ticket, err)
	}
	p.do(chromedp.Navigate(elsewhere.URL))
	p.text(`(() => {` + opened + fmt.Sprintf(`
		const source = new EventSource("%s%s");
		source.onopen = () => told.opens++;
		source.onerror = () => { if (source.readyState === EventSource.CLOSED) told.refused++; };
		const socket = new WebSocket("%s/v1/ws");
		socket.onopen = () => told.opens++;
		socket.onclose = () => told.refused++;
	})(), ""`, dev.cl.API(), ticket.Data.URL, "ws"+dev.cl.API()[len("http"):]))
	p.until(`told.refused === 2`)
	if opens := p.text(`String(told.opens)`); opens != "0" {
		t.Errorf("%s were opened", opens)
	}
}

// tell submits a streamed task of some seconds.
func (d devProcess) tell(t *testing.T) task.ID {
	t.Helper()
	r := longStory()
	r.Params["max_tokens"] = []byte("200")
	accepted, err := d.cl.Submit(t.Context(), r, "")
	if err != nil {
		t.Fatal(err)
	}
	return accepted.TaskID
}
