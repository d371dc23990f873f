package webhook

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

func signer() *callback.Keys {
	return callback.NewKeys(task.Secret{Key: []byte("0123456789abcdef")}, task.Secret{Number: 1, Key: []byte("fedcba9876543210")})
}

func private(t *testing.T, change func(*Params)) *sender {
	t.Helper()
	p := Params{Policy: callback.Policy{AllowPrivate: true}}.withDefaults()
	if change != nil {
		change(&p)
	}
	s := newSender(p, signer(), slog.New(slog.DiscardHandler))
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

func callTo(url string) call {
	return call{url: url, tenant: "acme", id: "evt_1", at: time.Now(), body: []byte(`{"id":"evt_1"}`)}
}

func TestAnAttemptIsSignedForItsTenant(t *testing.T) {
	verifier, err := callback.NewVerifier(signer().Secret("acme"))
	if err != nil {
		t.Fatal(err)
	}
	var verified atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || verifier.Verify(r.Header, body) != nil || string(body) != `{"id":"evt_1"}` {
			t.Errorf("body %s, headers %v", body, r.Header)
		}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.URL.RequestURI() != "/hook?x=1" {
			t.Errorf("%s %s, %v", r.Method, r.URL, r.Header)
		}
		if n := len(strings.Fields(r.Header.Get("webhook-signature"))); n != 2 {
			t.Errorf("%d signatures while the secret rotates", n)
		}
		verified.Store(true)
	}))
	defer srv.Close()
	if got := private(t, nil).send(t.Context(), callTo(srv.URL+"/hook?x=1"), time.Second); got.outcome != webhook.Accepted || got.status != 200 || !verified.Load() {
		t.Errorf("%+v", got)
	}
}

func TestTheStatusIsTheAnswer(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	for status, want := range map[int]webhook.Outcome{
		200: webhook.Accepted, 202: webhook.Accepted, 204: webhook.Accepted, 299: webhook.Accepted,
		410: webhook.Gone,
		301: webhook.Refused, 302: webhook.Refused, 307: webhook.Refused, 308: webhook.Refused, 304: webhook.Refused,
		400: webhook.Refused, 401: webhook.Refused, 404: webhook.Refused, 429: webhook.Refused, 500: webhook.Refused, 503: webhook.Refused,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if status/100 == 3 {
				w.Header().Set("Location", elsewhere.URL)
			}
			w.WriteHeader(status)
		}))
		if got := private(t, nil).send(t.Context(), callTo(srv.URL), time.Second); got != (answer{outcome: want, status: status}) {
			t.Errorf("%d: %+v; want %s", status, got, want)
		}
		srv.Close()
	}
}

func TestAReceiverInTroubleSaysWhenToComeAgain(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header string
		want   time.Duration
	}{
		"too many calls":          {429, "90", 90 * time.Second},
		"away":                    {503, "3600", time.Hour},
		"away until a date past":  {503, "Sat, 21 Nov 2020 12:00:00 GMT", 0},
		"away, and does not say":  {503, "", 0},
		"another kind of trouble": {500, "90", 0},
		"no trouble at all":       {200, "90", 0},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", c.header)
				w.WriteHeader(c.status)
			}))
			defer srv.Close()
			if got := private(t, nil).send(t.Context(), callTo(srv.URL), time.Second); got.retryAfter != c.want || got.status != c.status {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestAnEndlessAnswerIsNotAwaited(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for r.Context().Err() == nil {
			_, _ = w.Write(make([]byte, 64<<10))
		}
	}))
	defer srv.Close()
	if got := private(t, nil).send(t.Context(), callTo(srv.URL), 5*time.Second); got.outcome != webhook.Accepted || got.status != 200 {
		t.Errorf("%+v", got)
	}
}

func TestWhatGoesWrongIsTold(t *testing.T) {
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then a hang-up is noticed
		<-r.Context().Done()
	}))
	defer slow.Close()
	if got := private(t, nil).send(t.Context(), callTo(slow.URL), 50*time.Millisecond); got.outcome != webhook.TimedOut {
		t.Errorf("one that does not answer: %s", got.outcome)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + ln.Addr().String()
	_ = ln.Close()
	if got := private(t, nil).send(t.Context(), callTo(closed), time.Second); got.outcome != webhook.Unreachable {
		t.Errorf("one that is not there: %s", got.outcome)
	}
	hangup := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangup.Close()
	if got := private(t, nil).send(t.Context(), callTo(hangup.URL), time.Second); got.outcome != webhook.Unreachable {
		t.Errorf("one that hangs up: %s", got.outcome)
	}
}

func TestOnlyPublicAddressesAreDialled(t *testing.T) {
	reached := false
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer srv.Close()
	public := func(p *Params) {
		p.Policy = callback.Policy{}
		p.RootCAs = x509.NewCertPool()
		p.RootCAs.AddCert(srv.Certificate())
	}
	for _, url := range []string{srv.URL, "https://localhost:443/", "https://[::1]:8443/", "https://169.254.169.254/latest/meta-data"} {
		if got := private(t, public).send(t.Context(), callTo(url), time.Second); got.outcome != webhook.Prohibited {
			t.Errorf("%s: %s", url, got.outcome)
		}
	}
	if reached {
		t.Error("a private address was called")
	}
	trusted := func(p *Params) { public(p); p.Policy.AllowPrivate = true }
	if got := private(t, trusted).send(t.Context(), callTo(srv.URL), time.Second); got.outcome != webhook.Accepted {
		t.Errorf("where it is allowed, over TLS: %s", got.outcome)
	}
}

func TestNoProxyIsUsed(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") }))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	dialled := ""
	s := private(t, func(p *Params) {
		p.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = address
			return nil, net.ErrClosed
		}
	})
	if got := s.send(t.Context(), callTo("http://receiver.example.com/hook"), time.Second); got.outcome != webhook.Unreachable || dialled != "receiver.example.com:80" {
		t.Errorf("%s, dialled %s", got.outcome, dialled)
	}
}
