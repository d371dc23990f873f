package bulk

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// OpenAI is the dialect of the endpoints that OpenAI clients know.
type OpenAI struct{ Parser *openai.Parser }

var _ Dialect = OpenAI{}

func kindOf(endpoint string) (task.Kind, bool) {
	switch endpoint {
	case "/v1/chat/completions", responsesEndpoint:
		return task.Chat, true
	case "/v1/completions":
		return task.Completion, true
	case "/v1/embeddings":
		return task.Embedding, true
	}
	return "", false
}

// Serves implements Dialect.
func (OpenAI) Serves(endpoint string) bool {
	_, ok := kindOf(endpoint)
	return ok
}

// Request implements Dialect.
func (o OpenAI) Request(endpoint string, body []byte) (ingest.Submission, AnswerFunc, error) {
	kind, ok := kindOf(endpoint)
	if !ok {
		return ingest.Submission{}, nil, invalid("url", "is not one that batches are run for")
	}
	if endpoint == responsesEndpoint {
		return o.response(body)
	}
	call, err := o.Parser.Parse(kind, body, "")
	if err != nil {
		return ingest.Submission{}, nil, err
	}
	model, encoded := call.Request.Model, call.Base64 // all of the body that its answer needs
	return ingest.Submission{Request: call.Request, Kind: kind, Body: body}, func(t api.Task) Answer {
		head := openai.Head{Kind: kind, ID: t.TaskID, Model: model}
		if t.EndedAt != nil {
			head.At = *t.EndedAt
		}
		return answerOf(head, encoded, t)
	}, nil
}

func answerOf(head openai.Head, encoded bool, t api.Task) Answer {
	if t.Status != task.Succeeded || t.Output == nil && t.Error != nil {
		return failed(openai.FailureOf(t.Status, t.Error))
	}
	body, err := openai.Answer(head, encoded, t.Output, t.Usage)
	if err != nil {
		return failed(openai.NewFailure(http.StatusInternalServerError, string(fault.Internal),
			fmt.Sprintf("the engine's answer is not of the protocol's shape; see GET /v1/tasks/%s", t.TaskID), ""))
	}
	return Answer{Status: http.StatusOK, Body: body}
}

// Refusal implements Dialect.
func (OpenAI) Refusal(endpoint string, err error) Answer {
	kind, _ := kindOf(endpoint)
	if bad, ok := errors.AsType[*validate.Error](err); ok {
		named := *bad
		named.Path = paramOf(endpoint, kind, bad.Path)
		return failed(openai.NewFailure(fault.RuleOf(bad.Code).Status, string(bad.Code), named.Error(), named.Path))
	}
	code := fault.CodeOf(err)
	message := "the request was not accepted: our fault"
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Message != "" {
		message = e.Message
	}
	return failed(openai.NewFailure(fault.RuleOf(code).Status, string(code), message, ""))
}

func failed(f openai.Failure) Answer { return Answer{Status: f.Status, Body: f.Body()} }
