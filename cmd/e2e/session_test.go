//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// utterance is a message of a chat.
type utterance struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// conversation is a session with what should have been said in it so far.
type conversation struct {
	id    string
	words int // of an answer
	said  []utterance
}

// begin names a session that no other test has.
func begin(name string, words int) *conversation {
	return &conversation{id: name + time.Now().Format(time.RFC3339Nano), words: words}
}

// submit sends what a user says next.
func (c *conversation) submit(t *testing.T, s *system.System, text string) task.ID {
	t.Helper()
	accepted, err := s.Client().Submit(t.Context(), api.SubmitRequest{
		Model: "sim-chat", Payload: task.Payload{Text: text}, Params: task.Params{"max_tokens": json.RawMessage(fmt.Sprint(c.words))},
		Stream: true, SessionID: c.id, Memory: true,
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	return accepted.TaskID
}

// check waits for an answer and holds it to the one that the simulator gives to
// what was said before and the text: its answers are a function of all that it
// is given.
func (c *conversation) check(t *testing.T, s *system.System, id task.ID, text string) api.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	got, err := s.Client().Wait(ctx, id)
	if err != nil || got.Status != task.Succeeded {
		t.Fatalf("%q is %s: %v", text, got.Status, err)
	}
	c.said = append(c.said, utterance{"user", text})
	prompt, err := json.Marshal(c.said)
	if err != nil {
		t.Fatal(err)
	}
	if want := simulated.Text(string(prompt), c.words); got.Output.Text != want {
		t.Fatalf("%q, turn %d, was not given the %d messages that it should: answered %q; want %q", text, len(c.said)/2+1, len(c.said), got.Output.Text, want)
	}
	c.said = append(c.said, utterance{"assistant", got.Output.Text})
	return got
}

// TestASessionRemembersThroughFaults holds each answer of a conversation to what
// won before it, while Redis is emptied and the worker dies.
func TestASessionRemembersThroughFaults(t *testing.T) {
	p := params(t)
	p.Simulate = []string{"--token", "20ms"}
	p.Workers = 2
	s := start(t, p)
	c := begin("faults-", 12)
	ask := func(text string) {
		t.Helper()
		c.check(t, s, c.submit(t, s, text), text)
	}

	ask("one")
	ask("two")
	t.Run("what waits in a queue is answered in order, each with the answers before", func(t *testing.T) {
		var list []task.ID
		texts := []string{"three", "four", "five", "six"}
		for _, text := range texts {
			list = append(list, c.submit(t, s, text))
		}
		for i, id := range list {
			c.check(t, s, id, texts[i])
		}
	})
	t.Run("an emptied Redis forgets nothing", func(t *testing.T) {
		for _, text := range []string{"after the loss", "and once more"} {
			flush(t)
			c.check(t, s, c.submit(t, s, text), text)
		}
	})
	t.Run("what was stopped is not remembered", func(t *testing.T) {
		c.words = 200
		id := c.submit(t, s, "a long story")
		speaks(t, s, id)
		if _, _, err := s.Client().Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		c.words = 12
		c.check(t, s, c.submit(t, s, "never mind"), "never mind")
	})
	t.Run("a worker that dies in the middle of a turn", func(t *testing.T) {
		c.words = 100
		id := c.submit(t, s, "another story")
		next := c.submit(t, s, "and its end")
		speaks(t, s, id)
		for _, w := range s.Workers { // one of them runs it
			if err := w.Kill9(); err != nil {
				t.Fatal(err)
			}
		}
		flush(t)
		if _, err := s.AddWorker(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.check(t, s, id, "another story")
		c.check(t, s, next, "and its end")
	})
	t.Run("the session shows what was said, each turn once", func(t *testing.T) {
		var shown api.Session
		eventually(t, 10*time.Second, "the session is shown", func() bool {
			var err error
			shown, err = s.Client().Session(t.Context(), c.id, 0)
			return err == nil
		})
		var answers, want []string
		for _, turn := range shown.Turns {
			var u utterance
			if turn.Status != task.Succeeded {
				continue
			}
			if err := json.Unmarshal(turn.Answer, &u); err != nil {
				t.Fatal(err)
			}
			answers = append(answers, u.Content)
		}
		for _, u := range c.said {
			if u.Role == "assistant" {
				want = append(want, u.Content)
			}
		}
		if !slices.Equal(answers, want) || shown.TurnCount != len(want)+1 { // and the one that was stopped
			t.Errorf("%d turns, %d answers; want %d", shown.TurnCount, len(answers), len(want))
		}
	})
	t.Run("a session that was deleted begins anew", func(t *testing.T) {
		if err := s.Client().DeleteSession(t.Context(), c.id); err != nil {
			t.Fatal(err)
		}
		c.said, c.words = nil, 12
		ask("who are you?")
		ask("and I?")
	})
}

// speaks waits until a task has said something.
func speaks(t *testing.T, s *system.System, id task.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	heard := errors.New("heard")
	err := s.Client().Tail(ctx, id, event.ID{}, func(e event.Event) error {
		if e.Type == event.Delta {
			return heard
		}
		return nil
	})
	if !errors.Is(err, heard) {
		t.Fatal(err)
	}
}

// flush empties Redis.
func flush(t *testing.T) {
	t.Helper()
	if err := openRedis(t).FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}
