//go:build e2e

package e2e_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/proxy"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// TestRedisAway cuts the cable to Redis while the pipeline works.
func TestRedisAway(t *testing.T) {
	p := params(t)
	u, err := url.Parse(p.Redis)
	if err != nil {
		t.Fatal(err)
	}
	cable, err := proxy.Listen(u.Host, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cable.Close() })
	u.Host = cable.Addr()
	p.Redis = u.String()
	s := start(t, p)
	submitAndSucceed(t, s, "before the cut")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	cable.Set(proxy.Fault{Cut: true})
	list := submitMany(t, s, 100, func(int) api.SubmitRequest { return prompt("during the cut") })
	t.Run("terminals reach those who watch, by way of Kafka alone", func(t *testing.T) {
		// A results service vouches for tasks that are clearly younger than its
		// tail of the log: some seconds, because clocks differ.
		eventually(t, 30*time.Second, "a task is watched to its end", func() bool {
			accepted, err := s.Client().Submit(ctx, prompt("watched during the cut"), "")
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, accepted.TaskID)
			short, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			var last event.Type
			err = s.Client().Tail(short, accepted.TaskID, event.ID{}, func(e event.Event) error { last = e.Type; return nil })
			return err == nil && last == event.Succeeded
		})
	})
	t.Run("an idempotency key still names one task", func(t *testing.T) {
		key := "cut-" + time.Now().Format(time.RFC3339Nano)
		first, err := s.Client().Submit(ctx, prompt("keyed"), key)
		if err != nil {
			t.Fatal(err)
		}
		second, err := s.Client().Submit(ctx, prompt("keyed"), key)
		if err != nil || second.TaskID != first.TaskID {
			t.Errorf("second submit: %s, %v; want %s", second.TaskID, err, first.TaskID)
		}
		list = append(list, first.TaskID)
	})
	cable.Heal()
	t.Run("every result can be read once Redis is back", func(t *testing.T) {
		for id, got := range waitAll(t, s, list) {
			if got.Status != task.Succeeded || got.Output == nil {
				t.Errorf("task %s is %s", id, got.Status)
			}
		}
	})
}

// TestRollingResults replaces the results service under open streams.
func TestRollingResults(t *testing.T) {
	p := params(t)
	p.Simulate = []string{"--token", "50ms"}
	s := start(t, p)
	accepted, err := s.Client().Submit(t.Context(), api.SubmitRequest{
		Model: "sim-chat", Payload: task.Payload{Messages: []byte(`[{"role":"user","content":"a long story"}]`)},
		Params: task.Params{"max_tokens": []byte("100")}, Stream: true,
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var text, whole string
	restarted := false
	err = s.Client().Tail(ctx, accepted.TaskID, event.ID{}, func(e event.Event) error {
		switch e.Type {
		case event.Delta:
			text += e.Text
			if !restarted && len(text) > 100 {
				restarted = true
				return s.Replace(ctx, s.Results[0])
			}
		case event.Succeeded:
			whole = e.Result.Output.Text
		case event.Restart, event.Gap, event.Snapshot:
			t.Errorf("the stream says %s", e.Type)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !restarted || text == "" || text != whole {
		t.Errorf("restarted %v; the pieces make\n%q, the output is\n%q", restarted, text, whole)
	}
}
