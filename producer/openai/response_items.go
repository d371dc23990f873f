package openai

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// ItemPage asks for a part of a list of items.
type ItemPage struct {
	After string // the last item of the page before; empty: from the start
	Limit int
	Asc   bool // oldest first
}

// Bounds of a page of items.
const (
	itemsDefault = 20
	itemsMost    = 100
)

// ParseItemPage reads the query of a list. Errors are *validate.Error.
func ParseItemPage(after, limit, order string) (ItemPage, error) {
	p := ItemPage{After: after, Limit: itemsDefault}
	if limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 || n > itemsMost {
			return p, badMember("limit", fmt.Sprintf("must be between 1 and %d", itemsMost))
		}
		p.Limit = n
	}
	switch order {
	case "asc":
		p.Asc = true
	case "", "desc":
	default:
		return p, badMember("order", "must be asc or desc")
	}
	return p, nil
}

// itemList is a page of items.
type itemList struct {
	Object  string            `json:"object"`
	Data    []json.RawMessage `json:"data"`
	FirstID *string           `json:"first_id"`
	LastID  *string           `json:"last_id"`
	HasMore bool              `json:"has_more"`
}

// InputItems is a page of the items that a response was asked with.
func (r Response) InputItems(p ItemPage) ([]byte, error) {
	items := make([]json.RawMessage, len(r.Request.Input))
	ids := make([]string, len(items))
	for i, raw := range r.Request.Input {
		items[i], ids[i] = r.inputItem(i, raw)
	}
	if !p.Asc {
		slices.Reverse(items)
		slices.Reverse(ids)
	}
	if p.After != "" {
		at := slices.Index(ids, p.After)
		if at < 0 {
			return nil, badMember("after", "is no item of this response")
		}
		items, ids = items[at+1:], ids[at+1:]
	}
	n := min(p.Limit, len(items))
	out := itemList{Object: "list", Data: items[:n], HasMore: n < len(items)}
	if n > 0 {
		out.FirstID, out.LastID = &ids[0], &ids[n-1]
	}
	return encode(out), nil
}

// inputItem is an item as the API lists it: it has an id, a state, and its text
// in parts.
func (r Response) inputItem(i int, raw json.RawMessage) (json.RawMessage, string) {
	var m members
	_ = json.Unmarshal(raw, &m) // an object, or the request would not have been taken
	var it inputItem
	_ = json.Unmarshal(raw, &it)
	kind := cmp.Or(it.Type, "message")
	id := it.ID
	if id == "" {
		id = prefixOf(kind) + suffixOf(r.Task) + "_in_" + strconv.Itoa(i)
	}
	m["id"], m["type"] = encode(id), encode(kind)
	if m["status"] == nil {
		m["status"] = encode(responseCompleted)
	}
	var text string
	if kind == "message" && json.Unmarshal(it.Content, &text) == nil {
		part := map[string]any{"type": "input_text", "text": text}
		if it.Role == "assistant" {
			part = map[string]any{"type": "output_text", "text": text, "annotations": []any{}}
		}
		m["content"] = encode([]any{part})
	}
	return encode(m), id
}

func prefixOf(kind string) string {
	switch kind {
	case "function_call":
		return "fc_"
	case "function_call_output":
		return "fco_"
	case "reasoning":
		return "rs_"
	}
	return "msg_"
}
