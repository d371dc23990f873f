package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// Headers of the OpenAI routes. The stainless ones are what the official SDKs
// tell of themselves.
const (
	headerTaskID      = "X-Task-Id"
	headerProcessing  = "Openai-Processing-Ms"
	headerShouldRetry = "X-Should-Retry"
	headerIgnored     = "X-Penstock-Ignored"

	headerRetryCount  = "X-Stainless-Retry-Count"
	headerReadTimeout = "X-Stainless-Read-Timeout" // Python, in seconds
	headerTimeout     = "X-Stainless-Timeout"      // JavaScript, in seconds
)

// registerOpenAI adds the routes that OpenAI clients know.
func (a *API) registerOpenAI(e *echo.Echo) {
	form := httpserver.ErrorFormat(writeOpenAIError) // first: the errors of authentication have it too
	submit := httpserver.Authenticate(a.d.Auth, auth.ScopeSubmit)
	e.POST("/v1/chat/completions", a.postCall(task.Chat), form, submit, a.tellRate)
	e.POST("/v1/completions", a.postCall(task.Completion), form, submit, a.tellRate)
	e.POST("/v1/engines/:engine/completions", a.postCall(task.Completion), form, submit, a.tellRate)
	e.POST("/v1/embeddings", a.postCall(task.Embedding), form, submit, a.tellRate)
	e.POST("/v1/moderations", a.postModeration, form, submit, a.tellRate)
	known := httpserver.Authenticate(a.d.Auth)
	e.GET("/v1/models", a.getModels, form, known)
	e.GET("/v1/models/*", a.getModel, form, known)
	a.registerResponses(e, form)
}

// call is a request of an OpenAI client whose task is accepted.
type call struct {
	openai.Call
	tenant   string
	id       task.ID
	name     string // see internal/repeat
	model    string // as it was asked for
	at       time.Time
	stream   bool
	patience time.Duration // how long the client waits for a byte; 0: it does not say
	leave    func()        // gives back the seat of a stream

	response *openai.Response // what is asked for; nil: an answer of another sort
	repeats  bool             // the task was there before
	resumes  bool             // a stream that is cut can be gone on with
	watches  bool             // it is another call's task
}

func (k *call) head() openai.Head {
	return openai.Head{Kind: k.Kind, ID: k.id, Model: k.model, At: k.at}
}

// took says in a header how long the answer took so far.
func (k *call) took(c echo.Context) {
	c.Response().Header().Set(headerProcessing, strconv.FormatInt(time.Since(k.at).Milliseconds(), 10))
}

// postCall accepts a call as a task of class interactive and answers with what
// becomes of it.
func (a *API) postCall(kind task.Kind) echo.HandlerFunc {
	return func(c echo.Context) error {
		k, err := a.takeCall(c, func(k *call, body []byte) (s ingest.Submission, err error) {
			k.Call, err = a.parser.Parse(kind, body, engineOf(c))
			return s, err
		})
		if err != nil {
			return refusal(err, func(path string) string { return openai.ParamOf(kind, path) })
		}
		defer k.leave()
		k.introduce(c)
		if k.stream {
			return a.streamAnswer(c, k, chatTeller{openai.NewScript(k.head(), k.Usage)})
		}
		return a.wholeAnswer(c, k)
	}
}

// introduce says in the headers what task answers.
func (k *call) introduce(c echo.Context) {
	h := c.Response().Header()
	h.Set(headerTaskID, string(k.id))
	httpserver.AddLogAttrs(c, slog.String("task_id", string(k.id)))
	if names := printable(k.Ignored); names != "" {
		h.Set(headerIgnored, names)
	}
}

// readFunc reads the body of a call, and returns what is to be submitted beside
// what the body says.
type readFunc func(k *call, body []byte) (ingest.Submission, error)

// takeCall reads a call and makes it a task. What was asked is not kept while
// the call waits.
func (a *API) takeCall(c echo.Context, read readFunc) (*call, error) {
	k := &call{tenant: httpserver.Principal(c).Tenant, at: time.Now(), patience: patienceOf(c.Request().Header), leave: func() {}}
	in, err := a.read(c, k.tenant)
	if err != nil {
		a.d.Metrics.Refused(err)
		return nil, err
	}
	defer in.pass.Leave()
	s, err := read(k, in.body)
	if err == nil {
		err = a.seat(k)
	}
	if err != nil {
		a.d.Metrics.Refused(err)
		return nil, err
	}
	s.Tenant, s.Request, s.Key, s.Body, s.Kind = k.tenant, k.Request, in.key, in.body, k.Kind
	k.Request = nil
	if err := a.acceptCall(c, k, s); err != nil {
		k.leave()
		return nil, err
	}
	return k, nil
}

// seat takes a seat for a call that is streamed, and gives one that is waited for
// its deadline.
func (a *API) seat(k *call) error {
	k.model, k.stream = k.Request.Model, k.Request.Stream
	if k.stream {
		leave, err := a.d.Seats.Take(k.tenant, "streams", "wait for answers before asking for more")
		if err != nil {
			return err
		}
		k.leave = leave
		return nil
	}
	if k.patience > 0 && k.patience < api.InteractiveLimit && !k.response.Background() {
		k.Request.Timeout = k.patience.String()
	}
	return nil
}

// engineOf is the model that the path names; empty if it names none.
func engineOf(c echo.Context) string {
	id := c.Param("engine")
	if plain, err := url.PathUnescape(id); err == nil {
		return plain
	}
	return id
}

// acceptCall makes the call a task, or finds the one that it repeats.
func (a *API) acceptCall(c echo.Context, k *call, s ingest.Submission) error {
	if s.Key != "" {
		k.name = nameOf(k.tenant, "key", []byte(s.Key))
		return a.acceptKeyed(c, k, s)
	}
	k.name = nameOf(k.tenant, c.Request().URL.Path, s.Body)
	return a.acceptUnkeyed(c, k, s)
}

// acceptKeyed leaves it to the key to find a task that is there already.
func (a *API) acceptKeyed(c echo.Context, k *call, s ingest.Submission) error {
	ctx := c.Request().Context()
	receipt, err := a.d.Intake.Accept(ctx, s)
	if err != nil {
		return err
	}
	k.id, k.repeats = receipt.ID, receipt.Repeat
	a.noted(a.d.Repeats.Begin(ctx, k.name, k.id))
	return nil
}

// acceptUnkeyed gives a retry the task of the call that it repeats. The call is
// noted before its task is written: a client that hears nothing of it, or that
// its fate is unknown, comes back to the same id.
func (a *API) acceptUnkeyed(c echo.Context, k *call, s ingest.Submission) error {
	ctx := c.Request().Context()
	if retries(c.Request().Header) {
		id, err := a.d.Repeats.Again(ctx, k.name)
		a.noted(err)
		s.ID, s.Repeat = id, id != ""
	}
	if s.Repeat {
		a.metrics.joined.Inc()
	} else {
		s.ID = a.d.Intake.NewID(k.tenant)
		a.noted(a.d.Repeats.Begin(ctx, k.name, s.ID))
	}
	k.id, k.repeats = s.ID, s.Repeat
	_, err := a.d.Intake.Accept(ctx, s)
	switch {
	case err == nil:
	case comesBack(httpserver.AsError(answer(err)).Status):
		a.leave(ctx, k)
	default:
		a.noted(a.d.Repeats.Answered(ctx, k.name, k.id))
	}
	return err
}

// comesBack reports whether SDKs retry after a status by themselves.
func comesBack(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return true
	}
	return status >= http.StatusInternalServerError
}

// noted logs what could not be noted of a call: retries may then run twice.
func (a *API) noted(err error) {
	if err != nil {
		a.d.Log.Debug("calls are not noted, a retry may run twice", "err", err)
	}
}

// nameOf is the name of a call: who asks what, or by which key.
func nameOf(tenant, what string, body []byte) string {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(tenant), []byte(what), body} {
		_, _ = h.Write(strconv.AppendInt(nil, int64(len(part)), 10)) // a hash's Write never fails
		_, _ = h.Write([]byte{' '})
		_, _ = h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func retries(h http.Header) bool {
	n, err := strconv.Atoi(h.Get(headerRetryCount))
	return err == nil && n > 0
}

// patienceOf is how long an SDK waits for a byte; 0 if it does not say.
func patienceOf(h http.Header) time.Duration {
	for _, name := range []string{headerReadTimeout, headerTimeout} {
		s, err := strconv.ParseFloat(h.Get(name), 64)
		if err == nil && s > 0 && s <= (24*time.Hour).Seconds() && !math.IsNaN(s) {
			return time.Duration(s * float64(time.Second))
		}
	}
	return 0
}

// printable joins names of members for a header: those that fit one.
func printable(names []string) string {
	const most, longest = 16, 64
	var out []string
	for _, name := range names {
		odd := func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
		}
		if name != "" && len(name) <= longest && !strings.ContainsFunc(name, odd) && len(out) < most {
			out = append(out, name)
		}
	}
	return strings.Join(out, ", ")
}

// refusal gives a fault of the door the form of the OpenAI API: a path names the
// caller's own member.
func refusal(err error, paramOf func(path string) string) error {
	v, ok := errors.AsType[*validate.Error](err)
	if !ok {
		return err
	}
	named := *v
	named.Path = paramOf(v.Path)
	return answer(&named)
}
