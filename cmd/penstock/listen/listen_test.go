package listen_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock/penstock/cmd/penstock/listen"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/schema/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const body = `{"id":"evt_1","object":"event","type":"task.succeeded","created_at":1,"data":{"id":"task_1","status":"succeeded"}}`

// post delivers a body as Penstock would, or with a signature of somebody else's.
func post(t *testing.T, h http.Handler, tenant string) *httptest.ResponseRecorder {
	t.Helper()
	keys := callback.NewKeys(task.Secret{Key: []byte("0123456789abcdef")})
	header, err := keys.Sign(tenant, "evt_1", time.Now(), []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodPost, "/any/where", strings.NewReader(body))
	req.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func params(t *testing.T, out, errs io.Writer) listen.Params {
	t.Helper()
	v, err := callback.NewVerifier(callback.NewKeys(task.Secret{Key: []byte("0123456789abcdef")}).Secret("acme"))
	if err != nil {
		t.Fatal(err)
	}
	return listen.Params{Verifier: v, Out: out, Err: errs}
}

func TestADeliveryIsVerifiedAndPrinted(t *testing.T) {
	var out, errs bytes.Buffer
	h := listen.Handler(params(t, &out, &errs))
	if w := post(t, h, "acme"); w.Code != http.StatusNoContent || !strings.Contains(out.String(), "task.succeeded") || !strings.Contains(out.String(), "task_1") {
		t.Errorf("%d: %s", w.Code, out.String())
	}
	out.Reset()
	if w := post(t, h, "somebody else"); w.Code != http.StatusUnauthorized || out.Len() != 0 || !strings.Contains(errs.String(), "refused") {
		t.Errorf("%d: %s, %s", w.Code, out.String(), errs.String())
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("a GET: %d", w.Code)
	}
}

func TestWholeEventsArePrintedWhenAsked(t *testing.T) {
	var out bytes.Buffer
	p := params(t, &out, io.Discard)
	p.JSON = true
	post(t, listen.Handler(p), "acme")
	if out.String() != body+"\n" {
		t.Errorf("printed %s", out.String())
	}
}

func TestADeliveryIsHandedOnAsItCame(t *testing.T) {
	status := http.StatusTeapot
	program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err != nil || string(got) != body || r.Header.Get("webhook-id") != "evt_1" || r.Header.Get("webhook-signature") == "" {
			t.Errorf("body %s, headers %v", got, r.Header)
		}
		w.WriteHeader(status)
	}))
	p := params(t, io.Discard, io.Discard)
	p.Forward = program.URL
	if w := post(t, listen.Handler(p), "acme"); w.Code != status {
		t.Errorf("answered %d", w.Code)
	}
	program.Close()
	if w := post(t, listen.Handler(p), "acme"); w.Code != http.StatusBadGateway {
		t.Errorf("without the program: %d", w.Code)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- listen.Serve(ctx, ln, params(t, io.Discard, io.Discard)) }()
	res, err := http.Post("http://"+ln.Addr().String(), "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("%v, %d", err, res.StatusCode)
	}
}
