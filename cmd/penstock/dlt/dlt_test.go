package dlt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/penstock/dlt"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/worker/redrive"
)

// operator is an operator API with three letters and one job, which completes
// at the second look.
type operator struct {
	mu       sync.Mutex
	asked    []redrive.Request
	discards []redrive.DiscardRequest
	queries  []string
	looks    int
	end      redrive.JobState
	empty    bool
}

func (o *operator) handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, data any) {
		raw, _ := json.Marshal(data)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(api.Envelope{Message: "ok", Data: raw})
	}
	refuse := func(w http.ResponseWriter, status int, code fault.Code, message string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(api.Envelope{Code: status, Message: message, Error: &api.Error{Type: code}})
	}
	letter := func(n int64) redrive.Letter {
		return redrive.Letter{
			ID: redrive.Ref{Partition: 3, Offset: n}, State: redrive.LetterDead, Code: fault.Timeout, Model: "sim-chat",
			Message: "timeout: \x1b[31mno answer", DeadAt: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC),
		}
	}
	mux.HandleFunc("GET /admin/v1/dead-letters", func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.queries = append(o.queries, r.URL.RawQuery)
		l := redrive.LetterList{Letters: []redrive.Letter{letter(9), letter(8)}, After: "next", Total: 3, Complete: true, Evicted: 7}
		if r.URL.Query().Get("after") == "next" {
			l.Letters, l.After = []redrive.Letter{letter(7)}, ""
		}
		answer(w, 200, l)
	})
	mux.HandleFunc("GET /admin/v1/dead-letters/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "3-9" {
			refuse(w, 404, fault.NotFound, "there is no dead letter "+r.PathValue("id"))
			return
		}
		d := redrive.Detail{Letter: letter(9), Redacted: r.URL.Query().Get("payload") != "true"}
		if !d.Redacted {
			d.Value = json.RawMessage(`{"payload":{"text":"the secret prompt"}}`)
		}
		answer(w, 200, d)
	})
	job := redrive.Job{ID: "redrive_1", State: redrive.JobRunning, Total: 3, Spec: redrive.Spec{Rate: 50}}
	mux.HandleFunc("POST /admin/v1/redrives", func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		var ask redrive.Request
		_ = json.NewDecoder(r.Body).Decode(&ask)
		o.asked = append(o.asked, ask)
		switch {
		case ask.Filter != nil && ask.Filter.Code == "timeot":
			refuse(w, 400, fault.Malformed, `did you mean "timeout"?`)
		case ask.DryRun && o.empty:
			answer(w, 200, redrive.Preview{DryRun: true, WouldSkip: 1, SkipFor: map[redrive.Reason]int{redrive.ReasonNotDead: 1}})
		case ask.DryRun:
			answer(w, 200, redrive.Preview{DryRun: true, WouldMove: 3, ByCode: map[string]int{"timeout": 3}, ByDisposition: map[string]int{"exhausted": 3}, ByModel: map[string]int{"sim-chat": 3}})
		default:
			answer(w, 202, job)
		}
	})
	mux.HandleFunc("GET /admin/v1/redrives/{id}", func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		j := job
		if o.looks++; o.looks > 1 {
			j.State, j.Redriven, j.Reason = o.end, 3, "because"
		}
		answer(w, 200, j)
	})
	mux.HandleFunc("POST /admin/v1/discards", func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		var ask redrive.DiscardRequest
		_ = json.NewDecoder(r.Body).Decode(&ask)
		o.discards = append(o.discards, ask)
		answer(w, 200, redrive.Discarded{ID: "discard_1", Discarded: 3})
	})
	mux.HandleFunc("POST /admin/v1/redrives/{id}/{wish}", func(w http.ResponseWriter, r *http.Request) {
		j := job
		j.State = redrive.JobState(r.PathValue("wish") + "d")
		answer(w, 200, j)
	})
	return mux
}

// run runs one command against the operator API. A person is a terminal with
// somebody who types stdin.
func (o *operator) run(t *testing.T, person bool, stdin string, words ...string) (stdout, stderr string, code int) {
	t.Helper()
	srv := httptest.NewServer(o.handler())
	defer srv.Close()
	c := dlt.Command(dlt.Params{
		ClientFunc: func() (*client.Client, error) { return client.New(client.Config{API: srv.URL}) },
		PrintFunc: func(w io.Writer, _ any, _ []any, table dlt.Table) error {
			for _, r := range append([][]string{table.Head}, table.Rows...) {
				fmt.Fprintln(w, strings.Join(r, "|"))
			}
			return nil
		},
		TerminalFunc: func(any) bool { return person },
	})
	var out, errs bytes.Buffer
	c.SetArgs(words)
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetErr(&errs)
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.ExecuteContext(t.Context())
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
	case errors.As(err, &coded):
		code = coded.ExitCode()
	default:
		code = 1
	}
	return out.String(), errs.String() + fmt.Sprint(err), code
}

func TestList(t *testing.T) {
	t.Run("follows the pages up to the limit, and says on stderr what it does not show", func(t *testing.T) {
		o := &operator{}
		out, errs, code := o.run(t, false, "", "ls", "--code", "timeout", "--limit", "3")
		if code != 0 || strings.Count(out, "sim-chat") != 3 || !strings.Contains(errs, "7 older letters") {
			t.Errorf("exit %d\n%s\n%s", code, out, errs)
		}
		if diff := cmp.Diff([]string{"code=timeout&limit=3", "after=next&code=timeout&limit=1"}, o.queries); diff != "" {
			t.Error(diff)
		}
		if strings.Contains(out, "\x1b") {
			t.Error("a message steers the terminal")
		}
	})
	t.Run("times may be durations ago, and nonsense is a usage error", func(t *testing.T) {
		o := &operator{}
		o.run(t, false, "", "ls", "--since", "2h")
		if len(o.queries) == 0 || !strings.Contains(o.queries[0], "since=20") {
			t.Errorf("queries %v", o.queries)
		}
		if _, errs, code := o.run(t, false, "", "ls", "--since", "lately"); code != 2 || !strings.Contains(errs, "90m") {
			t.Errorf("exit %d: %s", code, errs)
		}
	})
}

func TestShow(t *testing.T) {
	o := &operator{}
	out, _, _ := o.run(t, false, "", "show", "3-9")
	if strings.Contains(out, "secret") || !strings.Contains(out, "redacted") {
		t.Errorf("redacted show prints\n%s", out)
	}
	if out, _, _ = o.run(t, false, "", "show", "3-9", "--payload"); !strings.Contains(out, "secret prompt") {
		t.Errorf("show --payload prints\n%s", out)
	}
	if _, errs, code := o.run(t, false, "", "show", "0-0"); code != 1 || !strings.Contains(errs, "no dead letter") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestRedrive(t *testing.T) {
	for _, c := range []struct {
		name          string
		person        bool
		stdin         string
		words         []string
		end           redrive.JobState
		empty         bool
		code          int
		dry, real     int
		stdout, shows string
	}{
		{name: "a dry run shows and writes nothing", words: []string{"--code", "timeout", "--dry-run"}, dry: 1, stdout: "would move|3"},
		{name: "a script must say --yes", words: []string{"--code", "timeout"}, code: 2, dry: 1, shows: "--yes"},
		{name: "a script that says it is served", words: []string{"--code", "timeout", "--yes"}, dry: 1, real: 1, stdout: "redrive_1"},
		{name: "a person is asked", person: true, stdin: "y\n", words: []string{"--all"}, dry: 1, real: 1, shows: "Redrive 3 letters at 50 a second?"},
		{name: "a person may say no", person: true, stdin: "\n", words: []string{"--all"}, code: 1, dry: 1, shows: "the answer was no"},
		{name: "ids are taken as they are", words: []string{"3-9", "--yes"}, dry: 1, real: 1},
		{name: "nothing selected is a usage error", code: 2, shows: "--all"},
		{name: "ids and a filter are too much", words: []string{"3-9", "--code", "timeout"}, code: 2, shows: "or a filter"},
		{name: "a rate of nothing is a usage error", words: []string{"--all", "--rate", "0"}, code: 2, shows: "--rate"},
		{name: "a mistyped code is a usage error with a suggestion", words: []string{"--code", "timeot", "--yes"}, code: 2, dry: 1, shows: "timeout"},
		{name: "nothing to move says why", words: []string{"--all", "--yes"}, empty: true, code: 1, dry: 1, shows: "1 not_dead"},
		{name: "wait ends well with the job", words: []string{"--all", "--yes", "--wait"}, end: redrive.JobCompleted, dry: 1, real: 1, stdout: "completed"},
		{name: "wait fails if the job aborted", words: []string{"--all", "--yes", "--wait"}, end: redrive.JobAborted, code: 1, dry: 1, real: 1, shows: "aborted after 3 of 3 letters: because"},
		{name: "wait fails if the job stopped", words: []string{"--all", "--yes", "--wait"}, end: redrive.JobPaused, code: 1, dry: 1, real: 1, shows: "because"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &operator{end: c.end, empty: c.empty}
			out, errs, code := o.run(t, c.person, c.stdin, append([]string{"redrive"}, c.words...)...)
			var dry, real int
			for _, ask := range o.asked {
				if ask.DryRun {
					dry++
				} else {
					real++
				}
			}
			if code != c.code || dry != c.dry || real != c.real || !strings.Contains(out, c.stdout) || !strings.Contains(errs, c.shows) {
				t.Errorf("exit %d, %d dry runs, %d jobs\nstdout: %s\nstderr: %s", code, dry, real, out, errs)
			}
		})
	}
}

func TestDiscard(t *testing.T) {
	for name, c := range map[string]struct {
		words []string
		code  int
		asks  int
	}{
		"by filter":                     {words: []string{"--code", "timeout", "--reason", "old"}, asks: 1},
		"by id":                         {words: []string{"3-9", "--reason", "old"}, asks: 1},
		"without a reason":              {words: []string{"3-9"}, code: 2},
		"with nothing selected":         {words: []string{"--reason", "old"}, code: 2},
		"with a filter and ids at once": {words: []string{"3-9", "--code", "timeout", "--reason", "old"}, code: 2},
	} {
		t.Run(name, func(t *testing.T) {
			o := &operator{}
			out, errs, code := o.run(t, false, "", append([]string{"discard"}, c.words...)...)
			if code != c.code || len(o.discards) != c.asks || (c.asks == 1 && (o.discards[0].Reason != "old" || !strings.Contains(out, "discarded|3"))) {
				t.Errorf("exit %d, asked %+v\n%s\n%s", code, o.discards, out, errs)
			}
		})
	}
}

func TestOrders(t *testing.T) {
	o := &operator{}
	for _, wish := range []string{"pause", "resume"} {
		if out, errs, code := o.run(t, false, "", wish, "redrive_1"); code != 0 || !strings.Contains(out, wish+"d") {
			t.Errorf("%s: exit %d\n%s\n%s", wish, code, out, errs)
		}
	}
	if _, _, code := o.run(t, false, "", "cancel"); code != 2 {
		t.Errorf("cancel without a job exits %d; want 2", code)
	}
	if _, _, code := o.run(t, false, "", "replay"); code != 2 {
		t.Errorf("an unknown verb exits %d; want 2", code)
	}
}

func TestUnreachable(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	c := dlt.Command(dlt.Params{ClientFunc: func() (*client.Client, error) { return client.New(client.Config{API: srv.URL}) }})
	c.SetArgs([]string{"ls"})
	c.SilenceErrors, c.SilenceUsage = true, true
	if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "PENSTOCK_ADMIN") {
		t.Errorf("a server without the operator API: %v", err)
	}
	srv.Close()
	err := c.Execute()
	if _, ok := errors.AsType[*client.UnreachableError](err); !ok {
		t.Errorf("no server: %v; want an UnreachableError", err)
	}
}
