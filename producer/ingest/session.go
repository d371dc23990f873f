package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// orderOf is the key that a task is ordered by: its own, else its session's.
func orderOf(r *api.SubmitRequest) string {
	if r.OrderingKey == "" && r.SessionID != "" {
		return task.SessionKey(r.SessionID)
	}
	return r.OrderingKey
}

// checkMemory holds a task that wants the memory of its session to what memory
// is of: a conversation, in its order.
func checkMemory(r *api.SubmitRequest) error {
	switch {
	case !r.Memory:
		return nil
	case r.SessionID == "":
		return invalid("memory", "needs a session_id: memory is a session's")
	case r.OrderingKey != "":
		return invalid("ordering_key", "may not be given with memory: a session that remembers has an order of its own")
	case r.Payload.Inputs != nil:
		return invalid("payload.inputs", "cannot be remembered: give messages or a text")
	}
	return nil
}

// spoken is the payload of a task with memory: a text is what a user says.
func spoken(p task.Payload) (task.Payload, error) {
	if p.Text == "" {
		return p, nil
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // as in records
	said := []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}{{"user", p.Text}}
	if err := enc.Encode(said); err != nil {
		return p, fmt.Errorf("encode message: %w", err)
	}
	return task.Payload{Messages: bytes.TrimSuffix(out.Bytes(), []byte("\n")), Context: p.Context}, nil
}
