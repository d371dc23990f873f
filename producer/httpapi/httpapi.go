// Package httpapi is the HTTP face of the ingress: it reads a request, calls one
// function and writes the answer. What is accepted, and when, is decided in
// ingest and cancel; how bodies of the OpenAI API are read and written, in
// openai; what becomes of files of requests, in bulk.
//
// Native routes: POST /v1/inference, POST /v1/inference/batch, POST /api/forward,
// POST /v1/tasks/{id}/cancel, POST /v1/tasks/{id}/ticket, POST /v1/ws/ticket,
// GET /v1/webhooks/secret, POST, GET and DELETE /v1/sessions/{id}. Those that OpenAI clients know: POST /v1/chat/completions, /v1/completions,
// /v1/engines/{engine}/completions and /v1/embeddings, GET /v1/models and
// /v1/models/{id}, /v1/files, /v1/batches, with GET /v1/batches/{id}/webhook of
// our own, and /v1/responses with the routes below it.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/repeat"
	"github.com/penstock/penstock/internal/seats"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/producer/responses"
	"github.com/penstock/penstock/producer/session"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/webhook"
)

// Waiter waits for the terminal of a task that wins; ctx bounds the wait.
type Waiter interface {
	Wait(ctx context.Context, id task.ID) (*terminal.Terminal, uint8, error)
}

// Results brings large outputs back: *claimcheck.Desk. The error is of trouble
// that may pass.
type Results interface {
	Task(ctx context.Context, view api.Task) (_ api.Task, release func(), err error)
	Event(ctx context.Context, e eventlog.Entry) (_ eventlog.Entry, release func(), err error)
}

// Events hands over the events of a task: *follow.Stream.
type Events interface {
	Poll(ctx context.Context, until <-chan time.Time) (follow.Item, error)
	Close()
}

// Repeats lets a client's retry find the call that it repeats: *repeat.Memory.
type Repeats interface {
	Begin(ctx context.Context, call string, id task.ID) error
	Again(ctx context.Context, call string) (task.ID, error)
	Answered(ctx context.Context, call string, id task.ID) error
	Leave(ctx context.Context, call string, id task.ID) (repeat.Left, error)
	Orphan(ctx context.Context, call string, at repeat.Left) (bool, error)
}

// Secrets knows what each tenant verifies webhooks with: *callback.Keys.
type Secrets interface {
	Secret(tenant string) config.Secret
}

// Hooks shows what became of the webhook of a batch: *taskstore.Store. Complete
// says whether an empty log means that there is nothing to tell.
type Hooks interface {
	BatchWebhook(ctx context.Context, id string) (l webhook.Log, complete bool, err error)
}

// Deps are the parts the handlers call.
type Deps struct {
	Intake  *ingest.Intake
	Metrics *ingest.Metrics
	Limits  *admit.Limits
	Cancels *cancel.Desk
	Waiter  Waiter
	Results Results
	IDs     lookup.IDs
	Tickets *ticket.Signer
	Catalog *catalog.Catalog
	Auth    auth.Authenticator
	Secrets Secrets
	Hooks   Hooks
	Schemas fs.FS           // of the bodies: submit, forward, chat, completion, embedding, bulk, session and moderation.schema.json
	Drain   context.Context // done when waiting calls should stop to wait
	Faces   []Face          // registered beside these routes

	WatchFunc func(ctx context.Context, id task.ID) (Events, error) // from the first event on
	Repeats   Repeats
	Seats     *seats.Seats // of streams
	Registry  prometheus.Registerer
	Log       *slog.Logger

	Sessions *session.Desk // of conversations

	Filter  Filter // nil: nothing is moderated
	Bulk    *bulk.Desk
	MaxFile int64 // bytes of a file that Bulk takes

	Responses  *responses.Desk
	NewestFunc func(ctx context.Context, id task.ID) (event.Fence, error) // attempt of a task that has events

	DrainSpread time.Duration // over which streams that can be resumed end in a drain; default 5 s

	Grace     time.Duration // for a retry, until the task of a client that went away is cancelled; default GraceDefault
	Heartbeat time.Duration // longest silence of a stream; default 15 s
}

// Face is another way into the ingress that has routes of its own.
type Face interface{ Register(e *echo.Echo) }

// API holds the handlers.
type API struct {
	d       Deps
	submit  *validate.Schema
	forward *validate.Schema
	order   *validate.Schema
	session *validate.Schema
	parser  *openai.Parser
	models  models
	metrics *metrics

	moderation *validate.Schema
}

// New compiles the schemas.
func New(d Deps) (*API, error) {
	set, err := validate.Compile(d.Schemas)
	if err != nil {
		return nil, fmt.Errorf("compile request schemas: %w", err)
	}
	if d.Grace == 0 {
		d.Grace = GraceDefault
	}
	if d.Heartbeat == 0 {
		d.Heartbeat = heartbeatDefault
	}
	if d.DrainSpread == 0 {
		d.DrainSpread = drainSpreadDefault
	}
	a := &API{d: d, models: listModels(d.Catalog), metrics: newMetrics(d.Registry)}
	var errSubmit, errForward, errOrder, errSession, errModeration, errParser error
	a.submit, errSubmit = set.Schema("submit")
	a.forward, errForward = set.Schema("forward")
	a.order, errOrder = set.Schema("bulk")
	a.session, errSession = set.Schema("session")
	a.moderation, errModeration = set.Schema("moderation")
	a.parser, errParser = openai.NewParser(d.Schemas)
	return a, errors.Join(errSubmit, errForward, errOrder, errSession, errModeration, errParser)
}

// Register adds the routes.
func (a *API) Register(e *echo.Echo) {
	submit := httpserver.Authenticate(a.d.Auth, auth.ScopeSubmit)
	e.POST("/v1/inference", a.postInference, submit)
	e.POST("/v1/inference/batch", a.postBatch, submit)
	e.POST("/api/forward", a.postForward, submit)
	e.POST("/v1/tasks/:id/cancel", a.postCancel, submit)
	e.GET("/v1/webhooks/secret", a.getWebhookSecret, submit)
	e.POST("/v1/tasks/:id/ticket", a.postTicket, httpserver.Authenticate(a.d.Auth, auth.ScopeRead))
	e.POST("/v1/ws/ticket", a.postSocketTicket, httpserver.Authenticate(a.d.Auth))
	a.registerSessions(e)
	a.registerOpenAI(e)
	a.registerBulk(e)
	documents := echo.WrapHandler(spec.Handler())
	for _, path := range []string{"/docs", "/docs/*", "/openapi.json", "/asyncapi.json", "/schema/*"} {
		e.GET(path, documents)
	}
	for _, f := range a.d.Faces {
		f.Register(e)
	}
}

// postInference accepts one task.
func (a *API) postInference(c echo.Context) error {
	return a.one(c, func(body []byte, key string) (ingest.Submission, error) {
		var r api.SubmitRequest
		if err := a.submit.Decode(body, &r); err != nil {
			return ingest.Submission{}, err
		}
		return ingest.Submission{Request: &r, Key: key, Body: body}, nil
	})
}

// postForward accepts one task in the message form.
func (a *API) postForward(c echo.Context) error {
	return a.one(c, func(body []byte, key string) (ingest.Submission, error) {
		var r api.ForwardRequest
		if err := a.forward.Decode(body, &r); err != nil {
			return ingest.Submission{}, err
		}
		return ingest.OfMessage(r, body, key)
	})
}

// one reads a body, accepts its task and answers 202, or 200 for a caller who
// waits and a task that ends in time.
func (a *API) one(c echo.Context, decode func(body []byte, key string) (ingest.Submission, error)) error {
	receipt, err := a.accept(c, decode)
	if err != nil {
		return answer(err)
	}
	return a.respond(c, receipt)
}

func (a *API) accept(c echo.Context, decode func(body []byte, key string) (ingest.Submission, error)) (ingest.Receipt, error) {
	tenant := httpserver.Principal(c).Tenant
	in, err := a.read(c, tenant)
	if err != nil {
		a.d.Metrics.Refused(err)
		return ingest.Receipt{}, err
	}
	defer in.pass.Leave()
	s, err := decode(in.body, in.key)
	if err != nil {
		a.d.Metrics.Refused(err)
		return ingest.Receipt{}, err
	}
	s.Tenant = tenant
	return a.d.Intake.Accept(c.Request().Context(), s)
}

// respond answers for an accepted task.
func (a *API) respond(c echo.Context, r ingest.Receipt) error {
	h := c.Response().Header()
	accepted := api.NewAccepted(r.ID)
	h.Set(echo.HeaderLocation, accepted.StatusURL)
	if wait, ok := preferWait(c.Request().Header); ok {
		h.Set("Preference-Applied", fmt.Sprintf("wait=%d", int(wait.Seconds())))
		if view, release, ended := a.await(c.Request().Context(), r.ID, wait); ended {
			defer release()
			return httpserver.OK(c, 200, view)
		}
	}
	return httpserver.OK(c, 202, accepted)
}

// await waits for the task's end, at most so long, and not into a drain. An end
// whose output cannot be read now is left to a poll.
func (a *API) await(ctx context.Context, id task.ID, wait time.Duration) (view api.Task, release func(), ended bool) {
	waiting, stop := context.WithTimeout(ctx, wait)
	defer stop()
	defer context.AfterFunc(a.d.Drain, stop)()
	t, generation, err := a.d.Waiter.Wait(waiting, id)
	if err != nil || t == nil {
		return api.Task{}, nil, false
	}
	view, release, err = a.d.Results.Task(ctx, api.OfTerminal(t, generation))
	return view, release, err == nil
}
