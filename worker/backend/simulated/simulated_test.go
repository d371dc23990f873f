package simulated_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/backend/backendtest"
	"github.com/penstock/penstock/worker/backend/simulated"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(_ *testing.T, e *simulated.Engine) backend.Backend { return e })
}

func TestCost(t *testing.T) {
	batch := func(n int) []backend.Item {
		items := make([]backend.Item, n)
		for i := range items {
			items[i].Task = backendtest.Task(task.Completion, "x", 1, false)
		}
		return items
	}
	t.Run("a batch costs its base and each item", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := simulated.New(simulated.DefaultParams())
			began := time.Now()
			e.Run(t.Context(), batch(10))
			if took := time.Since(began); took != 30*time.Millisecond {
				t.Errorf("10 items took %s, want 30ms", took)
			}
		})
	})
	t.Run("batches queue for the device", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := simulated.New(simulated.DefaultParams())
			began := time.Now()
			done := make(chan struct{}, 3)
			for range 3 {
				go func() { e.Run(t.Context(), batch(1)); done <- struct{}{} }()
			}
			for range 3 {
				<-done
			}
			if took := time.Since(began); took != 63*time.Millisecond {
				t.Errorf("3 batches of one took %s, want 63ms", took)
			}
		})
	})
	t.Run("a stream takes its time per token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := simulated.New(simulated.DefaultParams())
			began := time.Now()
			item := backend.Item{Task: backendtest.Task(task.Chat, "x", 16, true), Emit: func(backend.Piece) {}}
			o := e.Run(t.Context(), []backend.Item{item})[0]
			if took := time.Since(began); took != 320*time.Millisecond || o.FirstToken != 20*time.Millisecond {
				t.Errorf("16 tokens took %s, the first %s; want 320ms and 20ms", took, o.FirstToken)
			}
		})
	})
}

func TestFaultSwitchesOverHTTP(t *testing.T) {
	e := simulated.New(simulated.Params{})
	srv := httptest.NewServer(e.Handler())
	defer srv.Close()
	post := func(body string) int {
		resp, err := srv.Client().Post(srv.URL+"/sim/faults", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for body, want := range map[string]int{
		`{"match":"poison","status":503,"retry_after":"2s","count":2}`: 201,
		`{"action":"slow","delay":"10ms"}`:                             201,
		`{"status":200}`:                                               400,
		`{"action":"explode"}`:                                         400,
		`{"mach":"typo"}`:                                              400,
		`{"delay":"soon"}`:                                             400,
	} {
		if got := post(body); got != want {
			t.Errorf("%s: status %d, want %d", body, got, want)
		}
	}
	if n := len(e.Faults().List()); n != 2 {
		t.Errorf("%d faults are on, want 2", n)
	}
	if n := e.Faults().Clear(0); n != 2 {
		t.Errorf("cleared %d, want 2", n)
	}
}
