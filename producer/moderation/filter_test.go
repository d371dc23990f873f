package moderation_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/producer/moderation"
	"github.com/penstock/penstock/schema/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const verdict = `{"id":"m","model":"x","results":[{"flagged":true,"categories":{"hate":true}}]}`

// filter is one over an endpoint.
func filter(t *testing.T, endpoint http.HandlerFunc, change func(*moderation.Config)) (*moderation.Filter, *prometheus.Registry) {
	t.Helper()
	srv := httptest.NewServer(endpoint)
	c := moderation.DefaultConfig()
	c.URL, c.Token = srv.URL+"/v1/moderations", "s3cret"
	if change != nil {
		change(&c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	f := moderation.New(c, reg)
	t.Cleanup(func() { f.Close(); srv.Close() })
	return f, reg
}

func TestTheFiltersAnswerIsHandedOn(t *testing.T) {
	f, _ := filter(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != "POST" || r.URL.Path != "/v1/moderations" || r.Header.Get("Authorization") != "Bearer s3cret" ||
			r.Header.Get("Content-Type") != "application/json" || string(body) != `{"input":"x"}` {
			t.Errorf("%s %s %v %s", r.Method, r.URL, r.Header, body)
		}
		_, _ = io.WriteString(w, verdict)
	}, nil)
	if got, err := f.Ask(t.Context(), []byte(`{"input":"x"}`)); err != nil || string(got) != verdict {
		t.Errorf("%s, %v", got, err)
	}
}

func TestWhatIsNoAnswerIsAFault(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		body    string
		code    fault.Code
		waits   time.Duration
		message string
	}{
		"an input that it does not take":    {400, `{"error":{"message":"secret of the filter"}}`, fault.Rejected, 0, "status 400"},
		"a model that it has not got":       {404, ``, fault.Rejected, 0, "model"},
		"too many calls":                    {429, ``, fault.Throttled, 7 * time.Second, ""},
		"away":                              {503, ``, fault.Unavailable, 7 * time.Second, ""},
		"credentials that it refuses":       {401, ``, fault.Unavailable, 7 * time.Second, ""},
		"a redirect, which is not followed": {302, ``, fault.Unavailable, 7 * time.Second, ""},
		"no JSON":                           {200, `yes`, fault.Unavailable, 0, "shape"},
		"no results":                        {200, `{"results":[]}`, fault.Unavailable, 0, "shape"},
		"results that say nothing":          {200, `{"results":[{}]}`, fault.Unavailable, 0, "shape"},
		"one that is too large":             {200, `{"x":"` + strings.Repeat("x", moderation.MaxAnswer) + `"}`, fault.Unavailable, 0, "shape"},
	} {
		t.Run(name, func(t *testing.T) {
			f, reg := filter(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					t.Error("a redirect was followed")
				}
				w.Header().Set("Retry-After", "7")
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}, nil)
			_, err := f.Ask(t.Context(), []byte(`{}`))
			if fault.CodeOf(err) != c.code || fault.RetryAfterOf(err) != c.waits || !strings.Contains(err.Error(), c.message) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v after %s", err, fault.RetryAfterOf(err))
			}
			if n, err := testutil.GatherAndCount(reg, "penstock_producer_moderation_calls_total"); n != 5 || err != nil {
				t.Errorf("%d outcomes, %v", n, err)
			}
		})
	}
}

func TestAFilterThatIsSilentCostsItsTimeout(t *testing.T) {
	gone := make(chan struct{})
	f, _ := filter(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		close(gone)
	}, func(c *moderation.Config) { c.Timeout = 50 * time.Millisecond })
	if _, err := f.Ask(t.Context(), []byte(`{}`)); fault.CodeOf(err) != fault.Timeout {
		t.Errorf("%v", err)
	}
	<-gone
}

func TestAFilterThatIsNotThereIsAFault(t *testing.T) {
	f, _ := filter(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil)
	if _, err := f.Ask(t.Context(), []byte(`{}`)); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("%v", err)
	}
}

func TestMoreCallsThanItMayHaveAreRefusedAtOnce(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	f, _ := filter(t, func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		_, _ = io.WriteString(w, verdict)
	}, func(c *moderation.Config) { c.Concurrency = 1 })
	var first error
	var wg sync.WaitGroup
	wg.Go(func() { _, first = f.Ask(t.Context(), []byte(`{}`)) })
	<-asked
	if _, err := f.Ask(t.Context(), []byte(`{}`)); fault.CodeOf(err) != fault.Unavailable || fault.RetryAfterOf(err) == 0 {
		t.Errorf("the second: %v", err)
	}
	close(answer)
	if wg.Wait(); first != nil {
		t.Errorf("the first: %v", first)
	}
	wg.Go(func() { <-asked })
	defer wg.Wait()
	if _, err := f.Ask(t.Context(), []byte(`{}`)); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

func TestTheOperatorIsToldEachMistake(t *testing.T) {
	for name, spoil := range map[string]func(*moderation.Config){
		"url: ":         func(c *moderation.Config) { c.URL = "ftp://x" },
		"url: must":     func(c *moderation.Config) { c.URL = "https://user:pass@x/v1" },
		"timeout: ":     func(c *moderation.Config) { c.Timeout = 0 },
		"concurrency: ": func(c *moderation.Config) { c.Concurrency = 0 },
	} {
		c := moderation.DefaultConfig()
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "pass@") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := moderation.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}
