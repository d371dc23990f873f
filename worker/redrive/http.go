package redrive

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// handlerFunc answers with data or an error.
type handlerFunc func(w http.ResponseWriter, req *http.Request) (status int, data any, err error)

// Handler returns the admin routes, all below /admin/v1/. Every answer is an
// api.Envelope.
func (r *Redriver) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, methods := range map[string]map[string]handlerFunc{
		"/admin/v1/dead-letters":         {http.MethodGet: r.listLetters},
		"/admin/v1/dead-letters/groups":  {http.MethodGet: r.listGroups},
		"/admin/v1/dead-letters/{id}":    {http.MethodGet: r.showLetter},
		"/admin/v1/discards":             {http.MethodPost: r.discard},
		"/admin/v1/redrives":             {http.MethodGet: r.listJobs, http.MethodPost: r.createJob},
		"/admin/v1/redrives/{id}":        {http.MethodGet: r.showJob},
		"/admin/v1/redrives/{id}/pause":  {http.MethodPost: r.order(entryPaused)},
		"/admin/v1/redrives/{id}/resume": {http.MethodPost: r.order(entryResumed)},
		"/admin/v1/redrives/{id}/cancel": {http.MethodPost: r.order(entryCancelled)},
	} {
		mux.Handle(path, r.methods(methods))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		r.answerError(w, req, notFound("no such admin route: %s", clipped(req.URL.Path)))
	})
	forgery := http.NewCrossOriginProtection()
	forgery.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.answerError(w, req, &failure{status: http.StatusForbidden, code: fault.Forbidden, message: "cross-origin requests are refused"})
	}))
	return forgery.Handler(r.guard(mux))
}

func (r *Redriver) methods(handlers map[string]handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		method := req.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		h, ok := handlers[method]
		if !ok {
			var allow []string
			for m := range handlers {
				allow = append(allow, m)
			}
			slices.Sort(allow)
			w.Header().Set("Allow", strings.Join(allow, ", "))
			r.answerError(w, req, &failure{
				status: http.StatusMethodNotAllowed, code: fault.NotAllowed,
				message: "this route takes " + strings.Join(allow, " and "),
			})
			return
		}
		status, data, err := h(w, req)
		if err != nil {
			r.answerError(w, req, err)
			return
		}
		r.answer(w, req, status, api.Envelope{Message: "ok"}, data)
	})
}

func (r *Redriver) answer(w http.ResponseWriter, req *http.Request, status int, e api.Envelope, data any) {
	raw, err := json.Marshal(data)
	if err != nil { // a type of ours that cannot be written is our bug
		r.log.Error("admin answer not encoded", "err", err)
		status, raw = http.StatusInternalServerError, []byte("null")
		e = api.Envelope{Code: status, Message: "the answer could not be written", Error: &api.Error{Type: fault.Internal}}
	}
	e.Data, e.RequestID = raw, requestID(req)
	body, err := json.Marshal(e)
	if err != nil {
		r.log.Error("admin envelope not encoded", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Request-Id", e.RequestID)
	w.WriteHeader(status)
	if req.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n')) // a client that is gone needs no answer
	}
}

func (r *Redriver) answerError(w http.ResponseWriter, req *http.Request, err error) {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		r.log.Error("admin request not served", "path", req.URL.Path, "err", err)
		f = &failure{status: http.StatusInternalServerError, code: fault.Internal, message: "internal error; the log of the worker has the cause"}
	}
	if f.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.retry))
	}
	if f.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="penstock admin"`)
	}
	r.answer(w, req, f.status, api.Envelope{Code: f.status, Message: f.message, Error: &api.Error{Type: f.code, Param: f.param}}, nil)
}

// requestID is the caller's, if it is short and plain, else a new one.
func requestID(req *http.Request) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:"
	if id := req.Header.Get("X-Request-Id"); id != "" && len(id) <= 128 && strings.Trim(id, plain) == "" {
		return id
	}
	return "req_" + strings.ToLower(rand.Text())
}
