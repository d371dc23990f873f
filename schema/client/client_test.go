package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/client"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// server stands for the network and what is behind it, without a socket, so
// that time can be a bubble's.
type server func(r *http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (s server) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := s(r)
	if res != nil {
		res.Request = r
	}
	return res, err
}

func open(t *testing.T, s server, change ...func(*client.Config)) *client.Client {
	t.Helper()
	cfg := client.Config{API: "http://penstock.test/", Key: "sk-1", HTTP: &http.Client{Transport: s}}
	for _, c := range change {
		c(&cfg)
	}
	cl, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func answer(status int, body string, headers ...string) *http.Response {
	res := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	for i := 0; i < len(headers); i += 2 {
		res.Header.Set(headers[i], headers[i+1])
	}
	return res
}

func data(status int, v any) *http.Response {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return answer(status, `{"code":0,"message":"ok","data":`+string(raw)+`,"request_id":"r"}`)
}

func refuse(status int, code fault.Code, headers ...string) *http.Response {
	return answer(status, fmt.Sprintf(`{"code":%d,"message":"cause and cure","data":null,"error":{"type":%q,"param":"model"},"request_id":"req-1"}`, status, code), headers...)
}

var hello = api.SubmitRequest{Model: "sim-chat", Payload: task.Payload{Text: "hello"}}

func TestASubmitThatMeetsTroubleIsTriedAgainUnderOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys, bodies []string
		trouble := []func() (*http.Response, error){
			func() (*http.Response, error) { return nil, errors.New("connection refused") },
			func() (*http.Response, error) { return answer(502, "<html>bad gateway"), nil },
			func() (*http.Response, error) { return refuse(503, fault.Unavailable), nil },
			func() (*http.Response, error) { return data(202, api.NewAccepted("task_1")), nil },
		}
		cl := open(t, func(r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			keys, bodies = append(keys, r.Header.Get("Idempotency-Key")), append(bodies, string(body))
			next := trouble[0]
			trouble = trouble[1:]
			return next()
		})
		got, err := cl.Submit(t.Context(), hello, "")
		if err != nil || got.TaskID != "task_1" {
			t.Fatalf("%v, %v", got, err)
		}
		for i := range keys {
			if keys[i] == "" || keys[i] != keys[0] || bodies[i] != bodies[0] || bodies[i] == "" {
				t.Errorf("try %d: key %s, body %s", i, keys[i], bodies[i])
			}
		}
		if len(keys) != 4 {
			t.Errorf("%d tries", len(keys))
		}
	})
}

func TestAKeyIsQuotedOnlyWhereItMust(t *testing.T) {
	for key, want := range map[string]string{"order-17": "order-17", "order 17": `"order 17"`, `a"b\c`: `"a\"b\\c"`, "a,b": `"a,b"`} {
		cl := open(t, func(r *http.Request) (*http.Response, error) {
			if got := r.Header.Get("Idempotency-Key"); got != want {
				t.Errorf("%q is sent as %q, want %q", key, got, want)
			}
			return data(202, api.NewAccepted("task_1")), nil
		})
		if _, err := cl.Submit(t.Context(), hello, key); err != nil {
			t.Error(err)
		}
	}
}

func TestARefusalIsReturnedAtOnce(t *testing.T) {
	calls := 0
	cl := open(t, func(r *http.Request) (*http.Response, error) {
		calls++
		return refuse(404, fault.NotFound), nil
	})
	_, err := cl.Submit(t.Context(), hello, "")
	e, ok := errors.AsType[*client.Error](err)
	want := client.Error{Status: 404, Type: fault.NotFound, Message: "cause and cure", Param: "model", RequestID: "req-1"}
	if !ok || calls != 1 || *e != want {
		t.Errorf("%d calls, %+v", calls, err)
	}
}

func TestTheServersRetryAfterIsRespected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		cl := open(t, func(*http.Request) (*http.Response, error) {
			if at = append(at, time.Since(began)); len(at) < 3 {
				return refuse(429, fault.Throttled, "Retry-After", "7"), nil
			}
			return data(200, api.Task{TaskID: "task_1", Status: task.Running}), nil
		})
		if _, err := cl.Task(t.Context(), "task_1", 0); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(at); i++ {
			if wait := at[i] - at[i-1]; wait < 7*time.Second || wait > 10*time.Second {
				t.Errorf("waited %s, asked for 7 s", wait)
			}
		}
	})
}

func TestTriesEnd(t *testing.T) {
	down := server(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
	for name, tc := range map[string]struct {
		retries int
		ctx     time.Duration
		server  server
		tries   int
	}{
		"after their number":                        {retries: 2, server: down, tries: 3},
		"at once where none is wanted":              {retries: -1, server: down, tries: 1},
		"before a pause that the time does not fit": {ctx: 10 * time.Millisecond, server: down, tries: 1},
		"before a pause that nobody has the patience for": {server: func(*http.Request) (*http.Response, error) {
			return refuse(503, fault.Unavailable, "Retry-After", "3600"), nil
		}, tries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tc.ctx > 0 {
					limited, cancel := context.WithTimeout(ctx, tc.ctx)
					defer cancel()
					ctx = limited
				}
				tries := 0
				cl := open(t, func(r *http.Request) (*http.Response, error) {
					tries++
					return tc.server(r)
				}, func(c *client.Config) { c.Retries = tc.retries })
				_, err := cl.Task(ctx, "task_1", 0)
				if !client.Temporary(err) || tries != tc.tries {
					t.Errorf("%d tries, %v", tries, err)
				}
			})
		})
	}
}

func TestACallThatMayNotBeRepeatedIsNot(t *testing.T) {
	calls := 0
	cl := open(t, func(*http.Request) (*http.Response, error) {
		calls++
		return nil, errors.New("reset by peer")
	})
	_, err := cl.Do(t.Context(), client.Call{Method: http.MethodPost, Path: "/v1/other"})
	if _, ok := errors.AsType[*client.UnreachableError](err); !ok || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestRequestsSayWhoCallsAndGoWhereTheyBelong(t *testing.T) {
	var got []string
	cl := open(t, func(r *http.Request) (*http.Response, error) {
		got = append(got, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization")+" "+r.Header.Get("X-Team"))
		return data(200, map[string]any{}), nil
	}, func(c *client.Config) {
		c.Results, c.Header = "http://results.test", http.Header{"X-Team": {"a"}}
	})
	_, _ = cl.Submit(t.Context(), hello, "k")
	_, _ = cl.Task(t.Context(), "task_1", 30*time.Second)
	_, _, _ = cl.Cancel(t.Context(), "task_1")
	_, _ = cl.List(t.Context(), client.Filter{Status: task.Dead, Label: "a=b", Limit: 5})
	want := []string{
		"POST http://penstock.test/v1/inference Bearer sk-1 a",
		"GET http://results.test/v1/tasks/task_1?wait=30 Bearer sk-1 a",
		"POST http://penstock.test/v1/tasks/task_1/cancel Bearer sk-1 a",
		"GET http://results.test/v1/tasks?label=a%3Db&limit=5&status=dead Bearer sk-1 a",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAWaitOutlastsTroubleAndEndsWithTheTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		cl := open(t, func(*http.Request) (*http.Response, error) {
			switch since := time.Since(began); {
			case since < 5*time.Minute:
				return nil, errors.New("connection refused")
			case since < 6*time.Minute:
				time.Sleep(20 * time.Second) // as a long poll is held
				return data(200, api.Task{TaskID: "task_1", Status: task.Running}), nil
			}
			return data(200, api.Task{TaskID: "task_1", Status: task.Failed}), nil
		})
		got, err := cl.Wait(t.Context(), "task_1")
		if err != nil || got.Status != task.Failed {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestAWaitEndsWithItsContextAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := open(t, func(*http.Request) (*http.Response, error) { return refuse(503, fault.Unavailable), nil },
			func(c *client.Config) { c.Retries = -1 })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := cl.Wait(ctx, "task_1")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cause and cure") {
			t.Errorf("%v", err)
		}
	})
}

func TestAllReadsEveryPage(t *testing.T) {
	pages := map[string]api.TaskList{
		"":  {Tasks: []api.Task{{TaskID: "task_3"}}, After: "a"},
		"a": {After: "b"}, // a rare filter may have an empty page
		"b": {Tasks: []api.Task{{TaskID: "task_2"}, {TaskID: "task_1"}}},
	}
	cl := open(t, func(r *http.Request) (*http.Response, error) {
		return data(200, pages[r.URL.Query().Get("after")]), nil
	})
	var got []task.ID
	for one, err := range cl.All(t.Context(), client.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, one.TaskID)
	}
	if diff := cmp.Diff([]task.ID{"task_3", "task_2", "task_1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnAnswerThatIsCutOffIsNoAnswer(t *testing.T) {
	cl := open(t, func(*http.Request) (*http.Response, error) { return answer(200, `{"code":0,"data":{"task_id"`), nil })
	_, err := cl.Task(t.Context(), "task_1", 0)
	if !client.Temporary(err) {
		t.Errorf("%v", err)
	}
}

func TestABaseURLIsChecked(t *testing.T) {
	for _, bad := range []string{"", "penstock:8080", "ftp://penstock", "http://"} {
		if _, err := client.New(client.Config{API: bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestASessionIsNamedInThePathAndAskedWhereItIsWritten(t *testing.T) {
	var asked []string
	cl := open(t, func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.Method+" "+r.URL.String())
		if r.Method == http.MethodDelete {
			return answer(http.StatusNoContent, ""), nil
		}
		return data(http.StatusCreated, api.Session{SessionID: "a/b ü", TurnCount: 2}), nil
	}, func(c *client.Config) { c.Results = "http://results.test" })
	opened, err := cl.OpenSession(t.Context(), "a/b ü", api.SessionSettings{Instructions: "be brief"})
	if err != nil || opened.SessionID != "a/b ü" {
		t.Errorf("%+v, %v", opened, err)
	}
	for _, turns := range []int{0, 7} {
		if shown, err := cl.Session(t.Context(), "a/b ü", turns); err != nil || shown.TurnCount != 2 {
			t.Errorf("%+v, %v", shown, err)
		}
	}
	if err := cl.DeleteSession(t.Context(), "a/b ü"); err != nil {
		t.Error(err)
	}
	const path = "http://penstock.test/v1/sessions/a%2Fb%20%C3%BC"
	if diff := cmp.Diff([]string{"POST " + path, "GET " + path, "GET " + path + "?limit=7", "DELETE " + path}, asked); diff != "" {
		t.Error(diff)
	}
}
