package openai

import (
	"bytes"

	"github.com/penstock/penstock/schema/api"
)

// End returns the last frames of a task that has ended: what was not shown yet of
// its output, and how the response ended. Err is ErrInterrupted when the output is
// another than what was shown.
func (s *ResponseScript) End(t api.Task) ([][]byte, error) {
	s.next = max(s.next, int64(t.Generation)*generationStep)
	b := s.response.body(t)
	if b.Status == responseCompleted || b.Status == responseIncomplete {
		items, _, err := outputOf(s.response.Task, t.Output)
		if err != nil {
			return nil, err
		}
		if err := s.whole(items, b.Status); err != nil {
			return s.take(), err
		}
	}
	s.next = max(s.next, s.p.After+1)
	s.lost = false // of the end everybody is told
	s.say("response."+b.Status, map[string]any{"response": b})
	return s.take(), nil
}

// whole shows what is left of an output, and that each item of it is done.
func (s *ResponseScript) whole(items []*outputItem, status string) error {
	if s.fence == 0 { // what an attempt may have told is not there any more
		s.lost = true
	}
	if s.begun >= 0 && (s.dead() || !s.continues(items)) {
		if err := s.void(); err != nil {
			return err
		}
	}
	s.p.Since = 0
	if !s.running {
		s.progress()
	}
	for _, it := range items {
		s.rest(it)
	}
	for at, it := range s.items {
		s.done(at, it, status)
	}
	return nil
}

// continues reports whether an output goes on where what was shown ends.
func (s *ResponseScript) continues(items []*outputItem) bool {
	for _, had := range s.items {
		i := indexOf(items, had.call)
		if i < 0 || !had.begins(items[i]) {
			return false
		}
	}
	return true
}

func indexOf(items []*outputItem, call int) int {
	for i, it := range items {
		if it.call == call {
			return i
		}
	}
	return -1
}

// begins reports whether an item is the beginning of another.
func (it *outputItem) begins(whole *outputItem) bool {
	if it.name != whole.name || it.callID != whole.callID || !bytes.HasPrefix(whole.text, it.text) {
		return false
	}
	for _, p := range it.parts {
		all, _ := whole.part(p.refusal)
		if all == nil || !bytes.HasPrefix(all.text, p.text) {
			return false
		}
	}
	return true
}

// rest shows what was not shown of an item.
func (s *ResponseScript) rest(whole *outputItem) {
	if whole.call >= 0 {
		at, it := s.call(whole.call)
		if it == nil {
			at, it = s.add(newCall(s.response.Task, whole.call, whole.callID, whole.name))
		}
		s.arguments(at, it, string(whole.text[len(it.text):]))
		return
	}
	_, it := s.message()
	for _, p := range whole.parts {
		had := 0
		if shown, _ := it.part(p.refusal); shown != nil {
			had = len(shown.text)
		}
		s.words(p.refusal, string(p.text[had:]))
	}
}

// done says that an item is whole.
func (s *ResponseScript) done(at int, it *outputItem, status string) {
	if it.call >= 0 {
		s.show("response.function_call_arguments.done", map[string]any{"item_id": it.id, "output_index": at, "arguments": string(it.text), "name": it.name})
	}
	for i, p := range it.parts {
		about := map[string]any{"item_id": it.id, "output_index": at, "content_index": i}
		if p.refusal {
			about["refusal"] = string(p.text)
			s.show("response.refusal.done", about)
		} else {
			about["text"], about["logprobs"] = string(p.text), []any{}
			s.show("response.output_text.done", about)
		}
		s.show("response.content_part.done", map[string]any{"item_id": it.id, "output_index": at, "content_index": i, "part": p.json()})
	}
	s.show("response.output_item.done", map[string]any{"output_index": at, "item": it.json(status)})
}
