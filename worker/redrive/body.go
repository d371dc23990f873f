package redrive

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock/penstock/schema/fault"
)

// Limits of the admin API.
const (
	maxBody     = 1 << 20
	maxIDs      = 10_000
	maxNote     = 512
	maxPage     = 500
	defaultPage = 50
	maxOperator = 128
	defaultRate = 50
	maxRate     = 500 // letters a second
	maxCanary   = maxWatched

	defaultCanary    = 50
	defaultStopRatio = 0.2
)

// Request is the body of POST /admin/v1/redrives. Exactly one of Filter and
// IDs is required; an empty filter selects every dead letter.
type Request struct {
	Filter *Filter  `json:"filter,omitempty"`
	IDs    []string `json:"ids,omitempty"` // of letters or of tasks
	DryRun bool     `json:"dry_run,omitempty"`
	Rate   float64  `json:"rate,omitempty"`  // letters a second; default 50
	Limit  int      `json:"limit,omitempty"` // letters at most; 0: all that match
	Note   string   `json:"note,omitempty"`

	// Canary is how many tasks are redriven before the job waits what becomes
	// of them. Default 50; 0: none.
	Canary *int `json:"canary,omitempty"`
	// StopRatio is the share of redriven tasks that may end badly again (dead,
	// failed or expired) before the job aborts. Default 0.2; 1: any.
	StopRatio *float64 `json:"stop_ratio,omitempty"`
	// Force also redrives tasks that were redriven too often, up to a limit.
	Force bool `json:"force,omitempty"`
}

// checkSelection demands one way of selecting letters.
func checkSelection(f *Filter, ids []string) error {
	switch {
	case (f == nil) == (len(ids) == 0):
		return badRequest("filter", `give either filter or ids; {"filter":{}} selects every dead letter`)
	case len(ids) > maxIDs:
		return badRequest("ids", "ids has %d entries, at most %d are taken; use a filter, or several calls", len(ids), maxIDs)
	case f != nil:
		return f.check()
	}
	return nil
}

// check refuses what makes no sense and fills in what was left out.
func (q *Request) check() error {
	if q.Canary == nil {
		q.Canary = new(defaultCanary)
	}
	if q.StopRatio == nil {
		q.StopRatio = new(defaultStopRatio)
	}
	switch {
	case *q.Canary < 0 || *q.Canary > maxCanary:
		return badRequest("canary", "canary must be from 0 (none) to %d letters", maxCanary)
	case !(*q.StopRatio >= 0 && *q.StopRatio <= 1):
		return badRequest("stop_ratio", "stop_ratio must be from 0 to 1")
	case q.Rate < 0 || q.Rate > maxRate:
		return badRequest("rate", "rate must be above 0 and at most %d letters a second", maxRate)
	case q.Limit < 0:
		return badRequest("limit", "limit must not be negative")
	case len(q.Note) > maxNote:
		return badRequest("note", "note must have at most %d bytes", maxNote)
	}
	if q.Rate == 0 {
		q.Rate = defaultRate
	}
	return checkSelection(q.Filter, q.IDs)
}

// operator is who sent a request, as they say: the admin token is no one's.
func operator(req *http.Request) (string, error) {
	by := req.Header.Get("Penstock-Operator")
	printable := !strings.ContainsFunc(by, func(c rune) bool { return !unicode.IsPrint(c) })
	if len(by) > maxOperator || !utf8.ValidString(by) || !printable {
		return "", badRequest("Penstock-Operator", "the header Penstock-Operator may have at most %d printable bytes", maxOperator)
	}
	return by, nil
}

// readBody reads a JSON body strictly: one object, no unknown and no duplicate
// names.
func readBody(w http.ResponseWriter, req *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &failure{status: http.StatusUnsupportedMediaType, code: fault.Unsupported, message: "send the body with Content-Type: application/json"}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &failure{status: http.StatusRequestEntityTooLarge, code: fault.TooLarge, message: "the body may have at most " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes"}
	}
	if err != nil {
		return badRequest("", "the body could not be read")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return badRequest("", `the body is empty; send for example {"filter":{"code":"timeout"},"dry_run":true}`)
	}
	return explain(json.Unmarshal(raw, into, json.RejectUnknownMembers(true)), into)
}

// explain turns a decoding error into an answer that names the place and, for
// a mistyped field, the nearest known one.
func explain(err error, into any) error {
	if err == nil {
		return nil
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			return badRequest(path(syntax.JSONPointer), "the body is not valid JSON at byte %d", syntax.ByteOffset)
		}
		return badRequest("", "the body is not valid JSON")
	}
	at := path(semantic.JSONPointer)
	if errors.Is(semantic.Err, json.ErrUnknownName) {
		name := semantic.JSONPointer.LastToken()
		return badRequest(clipped(at), "unknown field %q%s", clipped(name), suggestion(name, fieldNames(reflect.TypeOf(into))))
	}
	return badRequest(clipped(at), "%s has the wrong type or form; times are RFC 3339, like 2026-11-21T12:00:00Z", strings.TrimSpace("field "+clipped(at)))
}

func path(p jsontext.Pointer) string {
	return strings.ReplaceAll(strings.TrimPrefix(string(p), "/"), "/", ".")
}

// fieldNames lists the JSON names of a struct and of the structs in it.
func fieldNames(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return nil
	}
	var out []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out = append(out, name)
		out = append(out, fieldNames(f.Type)...)
	}
	return out
}

// query reads query parameters and keeps the first fault.
type query struct {
	values url.Values
	err    error
}

// readQuery refuses parameters that are unknown or given twice.
func readQuery(req *http.Request, known ...string) *query {
	values, err := url.ParseQuery(req.URL.RawQuery)
	q := &query{values: values}
	if err != nil {
		q.err = badRequest("", "the query string is malformed")
	}
	for name, all := range values {
		switch {
		case q.err != nil:
		case !slices.Contains(known, name):
			q.err = badRequest(clipped(name), "unknown query parameter %q%s", clipped(name), suggestion(name, known))
		case len(all) > 1:
			q.err = badRequest(clipped(name), "query parameter %q is given %d times", clipped(name), len(all))
		}
	}
	return q
}

func (q *query) text(name string) string { return q.values.Get(name) }

func (q *query) time(name string) time.Time {
	raw := q.values.Get(name)
	if raw == "" || q.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, raw)
	if err != nil {
		q.err = badRequest(name, "%s is not an RFC 3339 time like 2026-11-21T12:00:00Z", name)
	}
	return t
}

func (q *query) number(name string, otherwise, most int) int {
	raw := q.values.Get(name)
	if raw == "" || q.err != nil {
		return otherwise
	}
	n, err := strconv.Atoi(raw)
	if err != nil || n < 1 || n > most {
		q.err = badRequest(name, "%s must be a number from 1 to %d", name, most)
	}
	return n
}

func (q *query) flag(name string) bool {
	raw := q.values.Get(name)
	if raw == "" || q.err != nil {
		return false
	}
	on, err := strconv.ParseBool(raw)
	if err != nil {
		q.err = badRequest(name, "%s must be true or false", name)
	}
	return on
}
