//go:build e2e && llm

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// The tests here run on llama.cpp's own server, which PENSTOCK_TEST_LLM names by
// its base URL (scripts/llm.sh starts one). What they measure is what the engine
// says of itself.

// engineModel is the engine's one model.
const engineModel = "smollm2-135m"

// engineSystem is a system on the engine: two producers, since who stops a task
// need not be who accepted it. The engine is given so many calls at once.
func engineSystem(t *testing.T, concurrency int) (*system.System, engine) {
	t.Helper()
	url := os.Getenv("PENSTOCK_TEST_LLM")
	if url == "" {
		t.Skip("PENSTOCK_TEST_LLM is not set")
	}
	p := params(t)
	p.Producers = 2
	p.Catalog = fmt.Sprintf(`models:
  - {id: %[1]s, pool: default, kinds: [chat, completion, embedding]}
pools:
  - name: default
    backends: [{name: llama.cpp, url: "openai+%[2]s", models: [%[1]s], concurrency: %[3]d, streamed: true}]
`, engineModel, url, concurrency)
	e := engine{t, url}
	e.falls(30*time.Second, "idle before the test")
	return start(t, p), e
}

// engine asks llama.cpp's server about itself.
type engine struct {
	t   *testing.T
	url string
}

// metric is one of its gauges or counters.
func (e engine) metric(name string) int {
	e.t.Helper()
	res, err := http.Get(e.url + "/metrics")
	if err != nil {
		e.t.Fatal(err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "llamacpp:"+name+" "); ok {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				e.t.Fatal(err)
			}
			return int(n)
		}
	}
	e.t.Fatalf("the engine has no metric %s", name)
	return 0
}

func (e engine) busy() int { return e.metric("requests_processing") }

// rises waits until the engine works on so many requests.
func (e engine) rises(to int) {
	e.t.Helper()
	eventually(e.t, 30*time.Second, fmt.Sprintf("the engine works on %d requests", to), func() bool { return e.busy() >= to })
}

// falls waits until the engine works on nothing, and returns how long it took.
func (e engine) falls(within time.Duration, what string) time.Duration {
	e.t.Helper()
	began := time.Now()
	deadline, tick := time.NewTimer(within), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for e.busy() > 0 {
		select {
		case <-tick.C:
		case <-deadline.C:
			e.t.Fatalf("%s: after %s the engine still works on %d requests", what, within, e.busy())
		}
	}
	return time.Since(began)
}

// counting is a text that the model goes on with until it has no more tokens:
// some ten seconds.
const counting = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22"

func longCount() api.SubmitRequest {
	return api.SubmitRequest{
		Model: engineModel, Payload: task.Payload{Text: counting}, Stream: true,
		Params: task.Params{"max_tokens": []byte("900"), "temperature": []byte("0")},
	}
}

// slotLimit is how long a stopped task may hold its slot.
const slotLimit = 2 * time.Second

func TestStoppingATaskFreesARealEngine(t *testing.T) {
	s, e := engineSystem(t, 4)
	other := s.Producers[1] // the tasks are accepted by the first
	report := func(t *testing.T, what string, took, limit time.Duration) {
		t.Logf("slot free %s after %s (limit %s)", took.Round(10*time.Millisecond), what, limit)
	}
	begin := func(t *testing.T) task.ID {
		t.Helper()
		accepted, err := s.Client().Submit(t.Context(), longCount(), "")
		if err != nil {
			t.Fatal(err)
		}
		e.rises(1)
		return accepted.TaskID
	}
	ends := func(t *testing.T, id task.ID) {
		t.Helper()
		got, err := s.Client().Wait(t.Context(), id)
		if err != nil || got.Status != task.Cancelled {
			t.Errorf("the task is %s, %v", got.Status, err)
		}
	}

	t.Run("a cancel by another producer", func(t *testing.T) {
		id := begin(t)
		began := time.Now()
		res, err := http.Post(other.URL+"/v1/tasks/"+string(id)+"/cancel", "application/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("the cancel is answered %s", res.Status)
		}
		answered := time.Since(began)
		e.falls(slotLimit-answered, "cancel")
		report(t, "the cancel", time.Since(began), slotLimit)
		ends(t, id)
	})
	t.Run("a stop over a WebSocket of another producer", func(t *testing.T) {
		id := begin(t)
		conn, _, err := websocket.Dial(t.Context(), other.URL+"/v1/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.CloseNow() }()
		began := time.Now()
		if err := conn.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, `{"op":%q,"task_id":%q}`, api.OpCancel, id)); err != nil {
			t.Fatal(err)
		}
		e.falls(slotLimit, "stop")
		report(t, "the stop", time.Since(began), slotLimit)
		ends(t, id)
	})
	for _, streamed := range []bool{true, false} {
		t.Run(fmt.Sprintf("a hung up OpenAI client, streamed %t", streamed), func(t *testing.T) {
			ctx, hangUp := context.WithCancel(t.Context())
			defer hangUp()
			failed := make(chan error, 1) // one outcome
			go func() {
				body := fmt.Sprintf(`{"model":%q,"prompt":%q,"max_tokens":900,"temperature":0,"stream":%t}`, engineModel, counting, streamed)
				res, err := callOpenAI(ctx, s.Producers[0], body)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
				failed <- err
			}()
			e.rises(1)
			began := time.Now()
			hangUp()
			if err := <-failed; err == nil {
				t.Fatal("the answer came before the client hung up")
			}
			e.falls(slotLimit, "hang-up")
			report(t, "the client hung up, the grace for its retry included", time.Since(began), slotLimit)
		})
	}
	t.Run("a full engine, all of it", func(t *testing.T) {
		var ids []task.ID
		for range 4 {
			ids = append(ids, begin(t))
		}
		e.rises(4)
		began := time.Now()
		for _, id := range ids {
			if _, _, err := s.Client().Cancel(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
		e.falls(slotLimit, "four cancels")
		report(t, "four cancels", time.Since(began), slotLimit)
	})
}

func TestACancelledTaskThatWaitsNeverReachesARealEngine(t *testing.T) {
	s, e := engineSystem(t, 1)
	running, err := s.Client().Submit(t.Context(), longCount(), "")
	if err != nil {
		t.Fatal(err)
	}
	e.rises(1)
	read := e.metric("prompt_tokens_total")
	waiting := longCount()
	waiting.Payload.Text = strings.Repeat("never to be read ", 100)
	accepted, err := s.Client().Submit(t.Context(), waiting, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.Client().Cancel(t.Context(), accepted.TaskID); err != nil || got.Status != task.Cancelled {
		t.Fatalf("the cancel says %s, %v", got.Status, err)
	}
	if _, _, err := s.Client().Cancel(t.Context(), running.TaskID); err != nil {
		t.Fatal(err)
	}
	e.falls(slotLimit, "cancel of what ran")
	// A task behind both shows that the worker is past the cancelled one.
	after := longCount()
	after.Payload.Text, after.Params = "a b c", task.Params{"max_tokens": []byte("4")}
	last, err := s.Client().Run(t.Context(), after)
	if err != nil || last.Status != task.Succeeded {
		t.Fatalf("the task behind is %s, %v", last.Status, err)
	}
	if more := e.metric("prompt_tokens_total") - read; more > 100 {
		t.Errorf("the engine has read %d tokens of prompts: the cancelled one reached it", more)
	}
	got, err := s.Client().Task(t.Context(), accepted.TaskID, 0)
	if err != nil || got.Status != task.Cancelled || len(got.Attempts) != 0 {
		t.Errorf("the cancelled task is %s with %d attempts, %v", got.Status, len(got.Attempts), err)
	}
}

// TestOfficialClientsOnARealEngine runs the official clients against llama.cpp
// behind the queue: what they need of an answer must be there whoever makes it.
func TestOfficialClientsOnARealEngine(t *testing.T) {
	s, _ := engineSystem(t, 4)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	scripts, err := filepath.Abs("../../scripts/sdk")
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, dir, name, script string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, name, filepath.Join(scripts, script), s.Producers[0].URL, engineModel)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
	}
	t.Run("Python", func(t *testing.T) { check(t, t.TempDir(), install(ctx, t, "python"), "engine.py") })
	t.Run("JavaScript", func(t *testing.T) { check(t, install(ctx, t, "node"), "node", "engine.mjs") })
}

// TestTheTextThatARealEngineStreamsIsItsOutput follows a task over SSE.
func TestTheTextThatARealEngineStreamsIsItsOutput(t *testing.T) {
	s, _ := engineSystem(t, 4)
	ask := longCount()
	ask.Payload = task.Payload{Messages: json.RawMessage(`[{"role":"user","content":"Tell a story of a mill."}]`)}
	ask.Params["max_tokens"] = []byte("64")
	accepted, err := s.Client().Submit(t.Context(), ask, "")
	if err != nil {
		t.Fatal(err)
	}
	c := &told{t: t}
	if err := s.Client().Tail(t.Context(), accepted.TaskID, event.ID{}, func(e event.Event) error {
		raw, err := json.Marshal(e)
		c.hear(raw)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c.check()
}
