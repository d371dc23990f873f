package redrive_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/redrive"
)

func TestListLetters(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	deaths := []death{
		{tenant: "acme", at: now.Add(-5 * time.Hour)},
		{model: "sim-embed", originTopic: topic.Tasks("embed", task.Standard), at: now.Add(-4 * time.Hour)},
		{code: "unavailable", message: "unavailable: Connection Refused by 10.0.0.7:8000", at: now.Add(-3 * time.Hour)},
		{disposition: deadletter.SuspectedKiller, code: "lost", at: now.Add(-2 * time.Hour)},
		{code: "unavailable", message: "unavailable: Connection Refused by 10.0.0.9:8000", at: now.Add(-time.Hour)},
	}
	refs := make([]string, len(deaths))
	for i, d := range deaths {
		_, ref := w.die(t, d)
		refs[i] = ref.String()
	}
	r := w.start(t, "a", nil)
	hours := func(n int) string { return now.Add(time.Duration(-n) * time.Hour).UTC().Format(time.RFC3339) }
	for query, want := range map[string][]int{
		"":                                   {4, 3, 2, 1, 0},
		"tenant=acme":                        {0},
		"model=sim-embed":                    {1},
		"pool=embed":                         {1},
		"code=unavailable":                   {4, 2},
		"disposition=suspected_killer":       {3},
		"state=redriven":                     {},
		"text=connection+refused":            {4, 2},
		"since=" + hours(3):                  {4, 3, 2},
		"until=" + hours(3):                  {1, 0},
		"since=" + hours(3) + "&code=lost":   {3},
		"code=unavailable&text=10.0.0.9":     {4},
		"tenant=dev&disposition=undecodable": {},
	} {
		t.Run("filter "+query+" finds what matches, newest first", func(t *testing.T) {
			var l redrive.LetterList
			if code, e := r.do("GET", "/admin/v1/dead-letters?"+query, "", &l); code != http.StatusOK {
				t.Fatalf("answered %d: %s", code, e.Message)
			}
			got := []string{}
			for _, letter := range l.Letters {
				got = append(got, letter.ID.String())
			}
			expect := []string{}
			for _, i := range want {
				expect = append(expect, refs[i])
			}
			if diff := cmp.Diff(expect, got); diff != "" || l.Total != len(want) {
				t.Errorf("total %d; %s", l.Total, diff)
			}
		})
	}
	t.Run("pages are cut by limit and joined by cursor, with nothing lost or twice", func(t *testing.T) {
		var got []string
		after := ""
		for range 10 {
			var l redrive.LetterList
			r.do("GET", "/admin/v1/dead-letters?limit=2&after="+after, "", &l)
			for _, letter := range l.Letters {
				got = append(got, letter.ID.String())
			}
			if after = l.After; after == "" {
				break
			}
		}
		slices.Reverse(got)
		if diff := cmp.Diff(refs, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("letters that died alike form one group, which a filter finds again", func(t *testing.T) {
		var g redrive.GroupList
		r.do("GET", "/admin/v1/dead-letters/groups", "", &g)
		if g.Total != 4 || g.Groups[0].Count != 2 || g.Groups[0].Code != fault.Unavailable || g.Groups[0].Example.String() != refs[4] {
			t.Fatalf("groups = %+v", g)
		}
		var l redrive.LetterList
		r.do("GET", "/admin/v1/dead-letters?fingerprint="+g.Groups[0].Fingerprint, "", &l)
		if l.Total != 2 {
			t.Errorf("the group's filter finds %d; want 2", l.Total)
		}
	})
}

func TestShowLetter(t *testing.T) {
	w := newWorld(t)
	id, ref := w.die(t, death{})
	w.repeat(ref)
	bad, badRef := w.die(t, death{disposition: deadletter.Undecodable, value: []byte{0xff, 0}})
	r := w.start(t, "a", nil)
	t.Run("by task id, redacted unless asked", func(t *testing.T) {
		var d redrive.Detail
		_, e := r.do("GET", "/admin/v1/dead-letters/"+string(id), "", &d)
		if d.ID != ref || d.Duplicates != 1 || !d.Redacted || d.Attempts != 5 || len(d.History) != 1 || d.State != redrive.LetterDead {
			t.Errorf("detail = %+v", d)
		}
		if strings.Contains(string(e.Data), "secret prompt") {
			t.Error("the payload shows without being asked for")
		}
		if r.do("GET", "/admin/v1/dead-letters/"+ref.String()+"?payload=true", "", &d); !strings.Contains(string(d.Value), "secret prompt") {
			t.Errorf("value = %s", d.Value)
		}
	})
	t.Run("bytes that are no JSON come in base64", func(t *testing.T) {
		var d redrive.Detail
		r.do("GET", "/admin/v1/dead-letters/"+badRef.String()+"?payload=1", "", &d)
		if d.ValueBase64 != "/wA=" || d.Refused != redrive.ReasonUndecodable {
			t.Errorf("detail = %+v", d)
		}
		if code, _ := r.do("GET", "/admin/v1/dead-letters/"+string(bad), "", nil); code != http.StatusNotFound {
			t.Errorf("an undecodable letter has no task, but is found by it: %d", code)
		}
	})
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	w.die(t, death{})
	r := w.start(t, "a", nil)
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/admin/v1/dead-letters?tennant=x", "", 400, `did you mean "tenant"?`},
		{"GET", "/admin/v1/dead-letters?code=timeot", "", 400, `did you mean "timeout"?`},
		{"GET", "/admin/v1/dead-letters?limit=0", "", 400, "1 to 500"},
		{"GET", "/admin/v1/dead-letters?since=yesterday", "", 400, "RFC 3339"},
		{"GET", "/admin/v1/dead-letters?after=zz", "", 400, "cursor"},
		{"GET", "/admin/v1/dead-letters?tenant=a&tenant=b", "", 400, "2 times"},
		{"GET", "/admin/v1/dead-letters/task_nope", "", 400, "<partition>-<offset>"},
		{"GET", "/admin/v1/dead-letters/0-77", "", 404, "retention"},
		{"GET", "/admin/v1/nothing", "", 404, "no such admin route"},
		{"DELETE", "/admin/v1/dead-letters", "", 405, "GET"},
		{"PUT", "/admin/v1/redrives", "", 405, "GET and POST"},
		{"POST", "/admin/v1/redrives", "", 415, "application/json"},
		{"POST", "/admin/v1/redrives", " ", 400, "empty"},
		{"POST", "/admin/v1/redrives", "{", 400, "not valid JSON"},
		{"POST", "/admin/v1/redrives", "{}", 400, "either filter or ids"},
		{"POST", "/admin/v1/redrives", `{"filter":{},"ids":["0-0"]}`, 400, "either filter or ids"},
		{"POST", "/admin/v1/redrives", `{"filter":{},"dryrun":true}`, 400, `did you mean "dry_run"?`},
		{"POST", "/admin/v1/redrives", `{"filter":{"modell":"x"}}`, 400, `did you mean "model"?`},
		{"POST", "/admin/v1/redrives", `{"filter":{},"filter":{}}`, 400, "not valid JSON"},
		{"POST", "/admin/v1/redrives", `{"filter":{},"rate":"fast"}`, 400, "rate"},
		{"POST", "/admin/v1/redrives", `{"filter":{},"rate":501}`, 400, "at most 500"},
		{"POST", "/admin/v1/redrives", `{"filter":{},"rate":-1}`, 400, "above 0"},
		{"POST", "/admin/v1/redrives", `{"filter":{},"limit":-1}`, 400, "limit"},
		{"POST", "/admin/v1/redrives", `{"filter":{"disposition":"exausted"}}`, 400, `did you mean "exhausted"?`},
		{"POST", "/admin/v1/redrives", `{"ids":["0-77"]}`, 404, "0-77"},
		{"POST", "/admin/v1/redrives", `{"filter":{"tenant":"nobody"}}`, 404, "no dead letter matches"},
		{"POST", "/admin/v1/redrives", `{"note":"` + strings.Repeat("x", 600) + `","filter":{}}`, 400, "512"},
		{"POST", "/admin/v1/redrives", `{"note":"` + strings.Repeat("x", 1<<20) + `","filter":{}}`, 413, "1048576"},
		{"GET", "/admin/v1/redrives/redrive_x", "", 404, "no redrive job"},
		{"POST", "/admin/v1/redrives/redrive_x/pause", "", 404, "no redrive job"},
		{"GET", "/admin/v1/redrives?state=runing", "", 400, `did you mean "running"?`},
	} {
		t.Run(fmt.Sprintf("%s %s with %.40q is %d", c.method, c.path, c.body, c.status), func(t *testing.T) {
			code, e := r.do(c.method, c.path, c.body, nil)
			if code != c.status || !strings.Contains(e.Message, c.says) || e.Code != c.status || e.Error == nil || e.RequestID == "" {
				t.Errorf("answered %d %+v; want %d and %q", code, e, c.status, c.says)
			}
		})
	}
	if len(w.control) != 0 {
		t.Errorf("%d control entries after refused requests", len(w.control))
	}
}

func TestAuthorization(t *testing.T) {
	w := newWorld(t)
	guarded := w.start(t, "a", nil)
	open := w.start(t, "b", nil, func(p *redrive.Params) { p.Token = config.Secret("") })
	loopback, outside := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 8080}
	for _, c := range []struct {
		name   string
		to     *redriver
		local  net.Addr
		host   string
		header [2]string
		method string
		want   int
	}{
		{"the token opens", guarded, outside, "admin:8080", [2]string{"Authorization", "Bearer " + adminToken}, "GET", 200},
		{"no token is refused, on loopback too", guarded, loopback, "127.0.0.1:8080", [2]string{}, "GET", 401},
		{"a wrong token is refused", guarded, outside, "admin:8080", [2]string{"Authorization", "Bearer sesame"}, "GET", 401},
		{"without a configured token loopback is open", open, loopback, "127.0.0.1:8080", [2]string{}, "GET", 200},
		{"and localhost is", open, loopback, "localhost", [2]string{}, "GET", 200},
		{"and IPv6 is", open, &net.TCPAddr{IP: net.IPv6loopback}, "[::1]:8080", [2]string{}, "GET", 200},
		{"but other addresses are not", open, outside, "127.0.0.1:8080", [2]string{}, "GET", 403},
		{"nor a foreign name that resolves to loopback", open, loopback, "evil.example:8080", [2]string{}, "GET", 403},
		{"nor a page of another origin", open, loopback, "127.0.0.1:8080", [2]string{"Sec-Fetch-Site", "cross-site"}, "POST", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := httptest.NewRequest(c.method, "/admin/v1/redrives", nil)
			req.Host = c.host
			if c.header[0] != "" {
				req.Header.Set(c.header[0], c.header[1])
			}
			rec := httptest.NewRecorder()
			c.to.handler.ServeHTTP(rec, req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, c.local)))
			if rec.Code != c.want {
				t.Errorf("answered %d: %s; want %d", rec.Code, rec.Body, c.want)
			}
		})
	}
}

func TestIndexIsBounded(t *testing.T) {
	w := newWorld(t)
	var first redrive.Ref
	for i := range 100 {
		_, ref := w.die(t, death{at: time.Now().Add(time.Duration(i) * time.Second)})
		if i == 0 {
			first = ref
		}
	}
	r := w.start(t, "a", nil, func(p *redrive.Params) { p.IndexLimit = 20 })
	var l redrive.LetterList
	r.do("GET", "/admin/v1/dead-letters?limit=500", "", &l)
	if l.Indexed > 22 || l.Evicted != int64(100-l.Indexed) || l.Total != l.Indexed {
		t.Errorf("indexed %d, evicted %d, total %d", l.Indexed, l.Evicted, l.Total)
	}
	for i := 1; i < len(l.Letters); i++ {
		if l.Letters[i].DeadAt.After(l.Letters[i-1].DeadAt) {
			t.Fatal("not newest first")
		}
	}
	if got, err := testutil.GatherAndCount(r.metrics, "penstock_worker_redrive_index_evicted_total"); err != nil || got != 1 {
		t.Errorf("eviction is not counted: %d, %v", got, err)
	}
	var d redrive.Detail
	if code, _ := r.do("GET", "/admin/v1/dead-letters/"+first.String(), "", &d); code != http.StatusOK || d.ID != first {
		t.Errorf("a letter outside the index answered %d; want it from the topic", code)
	}
}
