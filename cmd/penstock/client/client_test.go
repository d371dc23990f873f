package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, c client.Config, h http.HandlerFunc) *client.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c.API = srv.URL
	cl, err := client.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestATailEndsWithTheCallersError(t *testing.T) {
	end := event.OfTerminal(&terminal.Terminal{TaskID: "task_1", Status: task.Succeeded}, 0)
	raw, err := json.Marshal(end)
	if err != nil {
		t.Fatal(err)
	}
	cl := open(t, client.Config{}, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "id: %s\nevent: succeeded\ndata: %s\n\n", end.ID, raw)
	})
	enough := errors.New("enough")
	each := func(event.Event) error { return enough }
	if err := cl.Tail(t.Context(), "task_1", event.ID{}, each); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	if err := cl.TailMany(t.Context(), []task.ID{"task_1"}, each); !errors.Is(err, enough) {
		t.Errorf("of many: got %v", err)
	}
}

func TestAJudgeSeesEveryAnswer(t *testing.T) {
	calls := 0
	cl := open(t, client.Config{}, func(w http.ResponseWriter, r *http.Request) {
		if calls++; r.Header.Get("Idempotency-Key") != "" {
			t.Error("a submit without a key has one")
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if _, err := cl.Submit(t.Context(), api.SubmitRequest{}, ""); client.StatusOf(err) != 503 || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestOnlyTheOperatorAPIHearsWhoOrders(t *testing.T) {
	cl := open(t, client.Config{Operator: "ada"}, func(w http.ResponseWriter, r *http.Request) {
		if operates, named := r.URL.Path == "/admin/v1/redrives", r.Header.Get("Penstock-Operator") == "ada"; operates != named {
			t.Errorf("%s by %q", r.URL.Path, r.Header.Get("Penstock-Operator"))
		}
		fmt.Fprint(w, `{"code":0,"data":{"answer":42}}`)
	})
	got, err := client.Operate[struct{ Answer int }](t.Context(), cl, http.MethodPost, "/admin/v1/redrives", nil, map[string]bool{"dry_run": true})
	if err != nil || got.Answer != 42 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := cl.Task(t.Context(), "task_1", 0); err != nil {
		t.Error(err)
	}
}

func TestMetricsSum(t *testing.T) {
	cl := open(t, client.Config{}, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "# HELP x y\n# TYPE x counter\nx{a=\"1\",b=\"2\"} 3\nx{a=\"1\",b=\"3\"} 4e+00\nx{a=\"2\"} 8\nxy 16\n")
	})
	m, err := cl.Metrics(t.Context(), cl.API())
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Sum("x", `a="1"`); got != 7 {
		t.Errorf("sum is %v, want 7", got)
	}
}
