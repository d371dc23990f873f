package bulk_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/schema/fault"
)

func TestABatchRunsEveryLineOnceWithinItsWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start(nil)
		defer p.drain()
		b := p.finish(p.order(jsonl(200), "24h"), time.Minute)
		if b.Status != bulk.Completed {
			t.Errorf("ended as %s", b.Status)
		}
		p.expectWhole(b, 200)
		if w.most != w.window {
			t.Errorf("%d tasks were in flight at most, want %d", w.most, w.window)
		}
		if b.InProgressAt.IsZero() || b.FinalizingAt.IsZero() || b.EndedAt.Before(b.FinalizingAt) {
			t.Errorf("times are missing: %+v", b)
		}
	})
}

func TestSlowLinesHoldNobodyUpAndAreCountedAsTheyEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.takes = func(prompt string) time.Duration {
			if prompt == "line 0" {
				return 10 * time.Minute
			}
			return 50 * time.Millisecond
		}
		p := w.start(nil)
		defer p.drain()
		id := p.order(jsonl(100), "1h")
		time.Sleep(time.Minute)
		if b := p.batch(id); b.Counts.Ended() != 99 || b.Status != bulk.InProgress {
			t.Errorf("after a minute: %s, %+v; want all but one", b.Status, b.Counts)
		}
		p.expectWhole(p.finish(id, 15*time.Minute), 100)
	})
}

func TestTheDoorsRefusalsAreWaitedOutOrAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		times, began := map[string]int{}, time.Now()
		w.refuse = func(prompt string) error {
			times[prompt]++
			switch {
			case prompt == "line 10" && times[prompt] < 3:
				return &fault.Error{Code: fault.Throttled, RetryAfter: 30 * time.Second}
			case prompt == "line 11" && times[prompt] < 2:
				return &fault.Error{Code: fault.Unavailable}
			case prompt == "line 12":
				return fault.New(fault.TooLarge, "larger than its topic takes")
			}
			return nil
		}
		p := w.start(nil)
		defer p.drain()
		b := p.finish(p.order(jsonl(50), "24h"), 10*time.Minute)
		if took := time.Since(began); took < time.Minute {
			t.Errorf("took %s although the door asked for a minute", took)
		}
		if b.Counts != (bulk.Counts{Completed: 39, Failed: 11}) || len(p.results(b.Output)) != 39 {
			t.Errorf("%+v", b.Counts)
		}
		refused := 0
		for _, r := range p.results(b.Errors) {
			if r.CustomID == "c-12" && r.Response.Status == 422 && strings.Contains(string(r.Response.Body), "larger") {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("c-12 is told %d times", refused)
		}
	})
}

func TestACancelledBatchKeepsWhatHasEnded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.takes = func(string) time.Duration { return time.Second }
		p := w.start(nil)
		defer p.drain()
		id := p.order(jsonl(200), "24h")
		time.Sleep(3500 * time.Millisecond)
		b, err := p.desk.Cancel(t.Context(), tenant, id)
		if err != nil || b.Status != bulk.Cancelling {
			t.Fatalf("%s, %v", b.Status, err)
		}
		b = p.finish(id, time.Minute)
		done := len(p.results(b.Output))
		if b.Status != bulk.Cancelled || b.Counts.Ended() != 200 || done < 30 || done > 60 || b.Counts.Completed != done {
			t.Errorf("%s, %+v, %d in the output", b.Status, b.Counts, done)
		}
		stopped := 0
		for _, r := range p.results(b.Errors) {
			if r.Error != nil && r.Error.Code == "batch_cancelled" {
				stopped++
			}
		}
		if stopped != b.Counts.Cancelled || stopped == 0 {
			t.Errorf("%d lines say that they were cancelled, %+v", stopped, b.Counts)
		}
		if len(w.tasks) > 64 {
			t.Errorf("%d tasks were submitted after all", len(w.tasks))
		}
		if again, err := p.desk.Cancel(t.Context(), tenant, id); err != nil || again.Status != bulk.Cancelled {
			t.Errorf("a second cancel: %s, %v", again.Status, err)
		}
	})
}

func TestTheEndOfTheWindowEndsTheBatch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.takes = func(prompt string) time.Duration {
			if prompt == "line 20" {
				return 100 * time.Hour
			}
			return 10 * time.Second
		}
		p := w.start(nil)
		defer p.drain()
		id := p.order(jsonl(500), "2m")
		b := p.finish(id, 10*time.Minute)
		expired := 0
		for _, r := range p.results(b.Errors) {
			if r.Error != nil && r.Error.Code == "batch_expired" {
				expired++
			}
		}
		if b.Status != bulk.Expired || b.Counts.Ended() != 500 || expired != b.Counts.Expired || expired < 250 || b.Counts.Completed < 100 {
			t.Errorf("%s, %+v, %d say that they expired", b.Status, b.Counts, expired)
		}
		if _, err := p.desk.Cancel(t.Context(), tenant, id); !errors.As(err, new(bulk.ErrEnded)) {
			t.Errorf("a cancel after the end: %v", err)
		}
	})
}

func TestAFileWithFaultsRunsNothing(t *testing.T) {
	good := func(id string) string {
		return `{"custom_id":"` + id + `","method":"POST","url":"/v1/completions","body":{"model":"sim","prompt":"x"}}`
	}
	for name, c := range map[string]struct {
		content string
		want    []bulk.Fault // without messages
	}{
		"an empty file":         {" \n\n", []bulk.Fault{{Code: "empty_file"}}},
		"what is no JSON":       {good("a") + "\n\nnonsense\n", []bulk.Fault{{Line: 3, Code: "invalid_json_line"}}},
		"a name that is double": {`{"custom_id":"a","custom_id":"b","method":"POST","url":"/v1/completions","body":{}}`, []bulk.Fault{{Line: 1, Code: "invalid_json_line"}}},
		"a wrong type":          {`{"custom_id":7}`, []bulk.Fault{{Line: 1, Code: "invalid_json_line", Param: "custom_id"}}},
		"a line that is a list": {`[1]`, []bulk.Fault{{Line: 1, Code: "invalid_json_line"}}},
		"no custom_id":          {`{"method":"POST","url":"/v1/completions","body":{}}`, []bulk.Fault{{Line: 1, Code: "missing_required_parameter", Param: "custom_id"}}},
		"a long custom_id":      {good(strings.Repeat("x", 513)), []bulk.Fault{{Line: 1, Code: "invalid_custom_id", Param: "custom_id"}}},
		"a custom_id twice":     {good("a") + "\n" + good("b") + "\n" + good("a"), []bulk.Fault{{Line: 3, Code: "duplicate_custom_id", Param: "custom_id"}}},
		"another method":        {strings.Replace(good("a"), "POST", "GET", 1), []bulk.Fault{{Line: 1, Code: "invalid_method", Param: "method"}}},
		"another url":           {strings.Replace(good("a"), "/v1/completions", "/v1/embeddings", 1), []bulk.Fault{{Line: 1, Code: "invalid_url", Param: "url"}}},
		"no body":               {`{"custom_id":"a","method":"POST","url":"/v1/completions"}`, []bulk.Fault{{Line: 1, Code: "missing_required_parameter", Param: "body"}}},
		"a body that is wrong":  {strings.Replace(good("a"), "prompt", "promt", 1), []bulk.Fault{{Line: 1, Code: "invalid_request", Param: "body.prompt"}}},
		"an unknown model":      {strings.Replace(good("a"), "sim", "gpt", 1), []bulk.Fault{{Line: 1, Code: "model_not_found", Param: "body.model"}}},
		"a line too large":      {good("a") + "\n" + good(strings.Repeat("x", 20_000)), []bulk.Fault{{Line: 2, Code: "line_too_large"}}},
		"two faults":            {"1\n" + good("a") + "\n2", []bulk.Fault{{Line: 1, Code: "invalid_json_line"}, {Line: 3, Code: "invalid_json_line"}}},
		"faults without end":    {strings.Repeat("x\n", 101), nil},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				p := w.start(nil)
				defer p.drain()
				b := p.finish(p.order(c.content, "24h"), time.Minute)
				if b.Status != bulk.Failed || len(w.tasks) > 0 || b.Output != "" || b.Errors != "" {
					t.Errorf("%+v with %d tasks", b, len(w.tasks))
				}
				if c.want == nil {
					if len(b.Faults) != 100 {
						t.Errorf("%d faults are told", len(b.Faults))
					}
					return
				}
				got := ""
				for _, f := range b.Faults {
					if f.Message == "" {
						t.Errorf("%+v says nothing", f)
					}
					f.Message = ""
					got += fmt.Sprintf("%+v", f)
				}
				want := ""
				for _, f := range c.want {
					want += fmt.Sprintf("%+v", f)
				}
				if got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		})
	}
}

func TestAnOrderThatCannotBeRunIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start(nil)
		defer p.drain()
		input := p.upload(jsonl(1))
		for name, change := range map[string]func(*bulk.Order){
			"an unknown file":          func(o *bulk.Order) { o.Input = "file-none" },
			"an endpoint without":      func(o *bulk.Order) { o.Endpoint = "/v1/images" },
			"a window that is no time": func(o *bulk.Order) { o.Window = "soon" },
			"a window too long":        func(o *bulk.Order) { o.Window = "25h" },
			"a window too short":       func(o *bulk.Order) { o.Window = "1s" },
			"a long metadata":          func(o *bulk.Order) { o.Metadata = map[string]string{"a": strings.Repeat("x", 513)} },
			"outputs that live a day too much": func(o *bulk.Order) {
				o.OutputLife = 31 * 24 * time.Hour
			},
		} {
			o := bulk.Order{Input: input, Endpoint: endpoint, Window: "24h"}
			change(&o)
			if b, err := p.desk.Create(t.Context(), tenant, o); err == nil {
				t.Errorf("%s: made %s", name, b.ID)
			}
		}
		if _, err := p.desk.Create(t.Context(), "other", bulk.Order{Input: input, Endpoint: endpoint, Window: "24h"}); err == nil {
			t.Error("a batch reads another tenant's file")
		}
	})
}

func TestARepeatedOrderIsTheSameBatch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start(nil)
		defer p.drain()
		o := bulk.Order{Input: p.upload(jsonl(3)), Endpoint: endpoint, Window: "24h"}
		make := func(o bulk.Order) string {
			b, err := p.desk.Create(t.Context(), tenant, o)
			if err != nil {
				t.Fatal(err)
			}
			return b.ID
		}
		first, second := make(o), make(o)
		if first == second {
			t.Error("two orders without a key are one batch")
		}
		o.Repeat = true
		if again := make(o); again != second && again != first {
			t.Error("a repeat made another batch")
		}
		o.Repeat, o.Key = false, "k"
		if keyed := make(o); keyed == first || keyed != make(o) {
			t.Error("an idempotency key does not name one batch")
		}
	})
}

func TestOtherTenantsSeeNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start(nil)
		defer p.drain()
		id := p.order(jsonl(3), "24h")
		b := p.finish(id, time.Minute)
		for what, err := range map[string]error{
			"batch":   second(p.desk.FindBatch(t.Context(), "other", id)),
			"cancel":  second(p.desk.Cancel(t.Context(), "other", id)),
			"file":    second(p.desk.FindFile(t.Context(), "other", b.Output)),
			"delete":  p.desk.DeleteFile(t.Context(), "other", b.Output),
			"nothing": second(p.desk.FindFile(t.Context(), tenant, "file-00000000000000000000000")),
		} {
			if fault.CodeOf(err) != fault.NotFound {
				t.Errorf("%s: %v, want not_found", what, err)
			}
		}
		if files, _, err := p.desk.Files(t.Context(), "other", "", bulk.Page{Limit: 10}); err != nil || len(files) > 0 {
			t.Errorf("lists %d files, %v", len(files), err)
		}
		if batches, _, err := p.desk.Batches(t.Context(), "other", bulk.Page{Limit: 10}); err != nil || len(batches) > 0 {
			t.Errorf("lists %d batches, %v", len(batches), err)
		}
	})
}

func second[T any](_ T, err error) error { return err }
