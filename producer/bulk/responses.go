package bulk

import (
	"net/http"

	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// responsesEndpoint is the one whose lines are not sorted by the kind of their
// task: a response is a chat too.
const responsesEndpoint = "/v1/responses"

// response is Request for a line of the Responses API. What it makes is in the
// output file, and nowhere else.
func (o OpenAI) response(body []byte) (ingest.Submission, AnswerFunc, error) {
	call, err := o.Parser.ParseResponse(body)
	if err != nil {
		return ingest.Submission{}, nil, err
	}
	kept := call.Kept
	switch {
	case kept.Echo.Background:
		return ingest.Submission{}, nil, invalid("background", "is what a batch is already")
	case kept.Echo.Previous != nil:
		return ingest.Submission{}, nil, invalid("previous_response_id", "is not taken in a batch; send the earlier items")
	}
	kept.Echo.Store, kept.Input = false, nil
	return ingest.Submission{Request: call.Request, Kind: call.Kind, Body: body}, func(t api.Task) Answer {
		if openai.Failed(t.Status, t.Output, t.Error) {
			return failed(openai.FailureOf(t.Status, t.Error))
		}
		about := *kept
		if about.At = t.TaskID.Time().Unix(); t.CreatedAt != nil {
			about.At = t.CreatedAt.Unix()
		}
		r := openai.Response{Task: t.TaskID, Request: &about}
		return Answer{Status: http.StatusOK, Body: r.Body(t)}
	}, nil
}

// paramOf names a member of a line's body by the path that a fault of its task
// has.
func paramOf(endpoint string, kind task.Kind, path string) string {
	if endpoint == responsesEndpoint {
		return openai.ResponseParamOf(path)
	}
	return openai.ParamOf(kind, path)
}
