package openai

import (
	"bytes"
	"encoding/json"

	"github.com/penstock/penstock/schema/event"
)

// callPiece is a piece of a call.
type callPiece struct {
	Index    int    `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// delta tells the next piece of the output.
func (s *ResponseScript) delta(e event.Event) {
	var more struct {
		Delta struct {
			Refusal string      `json:"refusal"`
			Calls   []callPiece `json:"tool_calls"`
		} `json:"delta"`
	}
	_ = json.Unmarshal(e.Choice, &more) // nil, or written by a worker
	if e.Text != "" {
		s.words(false, e.Text)
	}
	if more.Delta.Refusal != "" {
		s.words(true, more.Delta.Refusal)
	}
	for _, piece := range more.Delta.Calls {
		s.callPiece(piece)
	}
}

// words adds to the message.
func (s *ResponseScript) words(refusal bool, text string) {
	at, it := s.message()
	p, index := it.part(refusal)
	if p == nil {
		p, index = &outputPart{refusal: refusal}, len(it.parts)
		it.parts = append(it.parts, p)
		s.show("response.content_part.added", map[string]any{"item_id": it.id, "output_index": at, "content_index": index, "part": p.json()})
	}
	p.text = append(p.text, text...)
	if text == "" {
		return
	}
	about := map[string]any{"item_id": it.id, "output_index": at, "content_index": index, "delta": text}
	if refusal {
		s.show("response.refusal.delta", about)
		return
	}
	about["logprobs"] = []any{}
	s.show("response.output_text.delta", about)
}

// message is the message of the output, which begins if there is none.
func (s *ResponseScript) message() (index int, it *outputItem) {
	for i, it := range s.items {
		if it.call < 0 {
			return i, it
		}
	}
	return s.add(newMessage(s.response.Task))
}

func (s *ResponseScript) add(it *outputItem) (int, *outputItem) {
	at := len(s.items)
	s.show("response.output_item.added", map[string]any{"output_index": at, "item": it.json(responseInProgress)})
	s.items = append(s.items, it)
	return at, it
}

// maxCalls bounds what an index may make us keep.
const maxCalls = 1024

// callPiece adds to a call; one begins with the piece that has its name.
func (s *ResponseScript) callPiece(piece callPiece) {
	if piece.Index < 0 || piece.Index >= maxCalls {
		return
	}
	at, it := s.call(piece.Index)
	if it == nil {
		if piece.Function.Name == "" {
			return // the end has it
		}
		at, it = s.add(newCall(s.response.Task, piece.Index, piece.ID, piece.Function.Name))
	}
	s.arguments(at, it, piece.Function.Arguments)
}

func (s *ResponseScript) call(n int) (int, *outputItem) {
	for i, it := range s.items {
		if it.call == n {
			return i, it
		}
	}
	return 0, nil
}

func (s *ResponseScript) arguments(at int, it *outputItem, text string) {
	if text == "" {
		return
	}
	it.text = append(it.text, text...)
	s.show("response.function_call_arguments.delta", map[string]any{"item_id": it.id, "output_index": at, "delta": text})
}

// snapshot goes on with the text so far, if that is all there is; else the rest
// comes with the end.
func (s *ResponseScript) snapshot(text string) {
	var had []byte
	if len(s.items) == 1 && s.items[0].call < 0 && len(s.items[0].parts) == 1 && !s.items[0].parts[0].refusal {
		had = s.items[0].parts[0].text
	} else if len(s.items) > 0 {
		s.held = true
		return
	}
	rest, ok := bytes.CutPrefix([]byte(text), had)
	if !ok {
		s.held = true
		return
	}
	if len(rest) > 0 {
		s.words(false, string(rest))
	}
}
