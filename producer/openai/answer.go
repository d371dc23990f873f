package openai

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// Head is what every part of one answer bears.
type Head struct {
	Kind  task.Kind
	ID    task.ID
	Model string
	At    time.Time
}

// id names the answer; whoever reads it finds the task.
func (h Head) id() string {
	prefix := "cmpl-"
	if h.Kind == task.Chat {
		prefix = "chatcmpl-"
	}
	return prefix + strings.TrimPrefix(string(h.ID), "task_")
}

// body is an answer, or a chunk of one.
type body struct {
	ID      string          `json:"id"`
	Object  string          `json:"object"`
	Created int64           `json:"created"`
	Model   string          `json:"model"`
	Choices any             `json:"choices"`
	Usage   json.RawMessage `json:"usage,omitempty"`
}

// body begins one; chat is what a chat calls it.
func (h Head) body(chat string, choices any) body {
	object := "text_completion"
	if h.Kind == task.Chat {
		object = chat
	}
	return body{ID: h.id(), Object: object, Created: h.At.Unix(), Model: h.Model, Choices: choices}
}

// Answer is the body for a task that has succeeded. An error is an output that
// no engine of the protocol makes.
func Answer(h Head, base64 bool, out *task.Output, usage *task.Usage) ([]byte, error) {
	if out == nil {
		return nil, fmt.Errorf("%w: there is none", ErrShape)
	}
	if h.Kind == task.Embedding {
		return embeddings(h, base64, out, usage)
	}
	list, err := choices(h.Kind, out)
	if err != nil {
		return nil, err
	}
	all := make([]members, len(list))
	for i, c := range list {
		all[i] = c.whole()
	}
	b := h.body("chat.completion", all)
	if usage != nil {
		b.Usage = encode(usage)
	}
	return encode(b), nil
}

func embeddings(h Head, base64 bool, out *task.Output, usage *task.Usage) ([]byte, error) {
	var vectors []json.RawMessage
	if err := json.Unmarshal(out.Embeddings, &vectors); err != nil {
		return nil, fmt.Errorf("%w: embeddings", ErrShape)
	}
	data := make([]any, len(vectors))
	for i, v := range vectors {
		v, err := vectorAs(base64, v)
		if err != nil {
			return nil, err
		}
		data[i] = map[string]any{"object": "embedding", "index": i, "embedding": v}
	}
	if usage == nil {
		usage = new(task.Usage)
	}
	return encode(map[string]any{
		"object": "list", "data": data, "model": h.Model,
		"usage": map[string]int{"prompt_tokens": usage.PromptTokens, "total_tokens": usage.TotalTokens},
	}), nil
}

// vectorAs gives a vector the form that was asked for, whichever the engine has:
// a list of numbers, or their little-endian float32 in base64.
func vectorAs(encoded bool, v json.RawMessage) (json.RawMessage, error) {
	is := bytes.HasPrefix(bytes.TrimLeft(v, " \t\r\n"), []byte{'"'})
	switch {
	case is == encoded:
		return v, nil
	case encoded:
		var floats []float32
		if err := json.Unmarshal(v, &floats); err != nil {
			return nil, fmt.Errorf("%w: a vector is no list of numbers", ErrShape)
		}
		raw := make([]byte, 0, 4*len(floats))
		for _, f := range floats {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
		}
		return encode(base64.StdEncoding.EncodeToString(raw)), nil
	default:
		return decodeVector(v)
	}
}

func decodeVector(v json.RawMessage) (json.RawMessage, error) {
	var raw []byte // JSON text of base64
	if err := json.Unmarshal(v, &raw); err != nil || len(raw)%4 != 0 {
		return nil, fmt.Errorf("%w: a vector is not float32 in base64", ErrShape)
	}
	floats := make([]float32, len(raw)/4)
	for i := range floats {
		floats[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		if f := float64(floats[i]); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%w: a vector has what is no number", ErrShape)
		}
	}
	return encode(floats), nil
}

func null() json.RawMessage { return json.RawMessage("null") }

// encode writes our own values and what has been read as JSON before, which
// cannot fail. It does not escape <, > and &: answers are full of them.
func encode(v any) json.RawMessage {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Errorf("encode answer: %w", err))
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
