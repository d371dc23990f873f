// Package listen receives webhooks on this machine: it verifies each as its
// receiver should, prints it, and may hand it on to a program under test.
package listen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/schema/webhook"
)

// Params say what is done with a delivery.
type Params struct {
	Verifier *callback.Verifier
	Forward  string    // URL that each verified delivery is handed on to; empty: none
	JSON     bool      // print whole events, one a line
	Out      io.Writer // events
	Err      io.Writer // what was refused
}

const (
	maxBody        = 1 << 20
	forwardTimeout = 10 * time.Second
	stopGrace      = 3 * time.Second
)

// Serve receives webhooks on ln until ctx is done.
func Serve(ctx context.Context, ln net.Listener, p Params) error {
	srv := &http.Server{Handler: Handler(p), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		_ = srv.Shutdown(grace) // what is cut is delivered again
	})
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	<-stopped
	return nil
}

// Handler answers deliveries: 204 for one that is verified, or what it was
// handed on to answers; 401 for one that is not.
func Handler(p Params) http.Handler {
	return &receiver{p: p, client: &http.Client{Timeout: forwardTimeout}}
}

type receiver struct {
	p      Params
	client *http.Client
	mu     sync.Mutex // guards the writers
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "webhooks are posted", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	if err := r.p.Verifier.Verify(req.Header, body); err != nil {
		r.refused(req, err)
		http.Error(w, "the signature does not fit", http.StatusUnauthorized)
		return
	}
	status := http.StatusNoContent
	if r.p.Forward != "" {
		status = r.forward(req, body)
	}
	r.received(body, status)
	w.WriteHeader(status)
}

// forward hands a delivery on as it came.
func (r *receiver) forward(req *http.Request, body []byte) int {
	out, err := http.NewRequestWithContext(req.Context(), http.MethodPost, r.p.Forward, bytes.NewReader(body))
	if err != nil {
		return http.StatusBadGateway
	}
	out.Header = req.Header.Clone()
	res, err := r.client.Do(out)
	if err != nil {
		r.printf(r.p.Err, "%s cannot be reached: %v\n", r.p.Forward, err)
		return http.StatusBadGateway
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, maxBody) // the status is the answer
	return res.StatusCode
}

func (r *receiver) received(body []byte, status int) {
	if r.p.JSON {
		r.printf(r.p.Out, "%s\n", body)
		return
	}
	var e webhook.Event
	if err := json.Unmarshal(body, &e); err != nil {
		r.printf(r.p.Err, "a verified delivery is no event: %v\n", err)
		return
	}
	line := fmt.Sprintf("%s  verified  %d  %-15s  %s  %s", time.Now().Format(time.TimeOnly), status, e.Type, e.Data.ID, e.ID)
	if e.Data.Error != nil {
		line += "  " + e.Data.Error.Message
	}
	r.printf(r.p.Out, "%s\n", line)
}

func (r *receiver) refused(req *http.Request, err error) {
	r.printf(r.p.Err, "%s  refused   401  from %s: %v\n", time.Now().Format(time.TimeOnly), req.RemoteAddr, err)
}

func (r *receiver) printf(to io.Writer, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(to, format, args...)
}
