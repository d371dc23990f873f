package httpapi

import (
	"errors"

	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
)

// teller puts what becomes of a task into the frames of one sort of stream.
type teller interface {
	// begin returns the frames that come before all events.
	begin() [][]byte
	// tell returns the frames for an event that is no end, also with an error.
	tell(e event.Event) ([][]byte, error)
	// end returns the frames for the task's end, also with an error.
	end(t api.Task) ([][]byte, error)
	// last returns the frame of a failure that ends the stream, because of err.
	last(f openai.Failure, err error) []byte
}

// chatTeller tells the chunks of chats and completions.
type chatTeller struct{ script *openai.Script }

func (chatTeller) begin() [][]byte { return nil }

func (t chatTeller) tell(e event.Event) ([][]byte, error) {
	chunk, err := t.script.Tell(e)
	if err != nil || chunk == nil {
		return nil, err
	}
	return [][]byte{dataFrame(chunk)}, nil
}

func (t chatTeller) end(view api.Task) ([][]byte, error) {
	if openai.Failed(view.Status, view.Output, view.Error) {
		return nil, &ended{openai.FailureOf(view.Status, view.Error)}
	}
	chunks, err := t.script.End(view.Output, view.Usage)
	if err != nil {
		return nil, err
	}
	frames := make([][]byte, 0, len(chunks)+1)
	for _, chunk := range chunks {
		frames = append(frames, dataFrame(chunk))
	}
	return append(frames, []byte(doneFrame)), nil
}

func (chatTeller) last(f openai.Failure, _ error) []byte { return dataFrame(f.Body()) }

func dataFrame(body []byte) []byte {
	frame := append(make([]byte, 0, len(body)+8), "data: "...)
	return append(append(frame, body...), '\n', '\n')
}

// responseTeller tells the events of a response.
type responseTeller struct{ script *openai.ResponseScript }

func (t responseTeller) begin() [][]byte { return t.script.Begin() }

func (t responseTeller) tell(e event.Event) ([][]byte, error) { return t.script.Tell(e) }

func (t responseTeller) end(view api.Task) ([][]byte, error) { return t.script.End(view) }

func (t responseTeller) last(f openai.Failure, err error) []byte {
	if errors.Is(err, openai.ErrInterrupted) {
		return t.script.Interrupted()
	}
	return t.script.Failure(f)
}
