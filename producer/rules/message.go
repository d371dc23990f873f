package rules

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"

	"github.com/penstock/penstock/schema/task"
)

// MaxText bounds in bytes how much of a message's text an expression sees.
const MaxText = 64 << 10

// Message is what the rules look at.
type Message struct {
	Tenant    string
	Source    task.Source
	SessionID string
	Labels    map[string]string
	Payload   *task.Payload
}

// variables gives an expression its variables, each computed when first asked
// for: most expressions need one or two.
type variables struct {
	m       Message
	text    string
	length  int
	hasText bool
	lower   string
	context any
	decoded bool
}

// ResolveName implements the activation of CEL.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case "source":
		return string(v.m.Source), true
	case "tenant":
		return v.m.Tenant, true
	case "session_id":
		return v.m.SessionID, true
	case "labels":
		return v.labels(), true
	case "text":
		v.readText()
		return v.text, true
	case "length":
		v.readText()
		return int64(v.length), true
	case "text_lower":
		v.readText()
		if v.lower == "" {
			v.lower = strings.ToLower(v.text)
		}
		return v.lower, true
	case "context":
		return v.readContext(), true
	}
	return nil, false
}

// Parent implements the activation of CEL: there is none.
func (*variables) Parent() cel.Activation { return nil }

func (v *variables) labels() map[string]string {
	if v.m.Labels == nil {
		v.m.Labels = map[string]string{}
	}
	return v.m.Labels
}

func (v *variables) readText() {
	if v.hasText {
		return
	}
	v.hasText = true
	full := v.m.Payload.Text
	if full == "" {
		full = textOf(v.m.Payload)
	}
	v.length = utf8.RuneCountInString(full)
	v.text = strings.ToValidUTF8(full[:min(len(full), MaxText)], "")
}

// readContext returns the context, or an empty object where there is none: an
// expression can then ask has(context.key).
func (v *variables) readContext() any {
	if !v.decoded {
		v.decoded = true
		if len(v.m.Payload.Context) == 0 || json.Unmarshal(v.m.Payload.Context, &v.context) != nil || v.context == nil {
			v.context = map[string]any{}
		}
	}
	return v.context
}

// textOf joins what a chat's messages, or prompts, say.
func textOf(p *task.Payload) string {
	var parts []string
	if p.Messages != nil {
		var messages []struct {
			Content json.RawMessage `json:"content"`
		}
		if json.Unmarshal(p.Messages, &messages) == nil {
			for _, m := range messages {
				parts = appendContent(parts, m.Content)
			}
		}
	}
	for _, input := range p.Inputs {
		parts = appendContent(parts, input)
	}
	return strings.Join(parts, "\n")
}

// appendContent adds a plain string, or the texts of content parts.
func appendContent(parts []string, raw json.RawMessage) []string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		if text != "" {
			parts = append(parts, text)
		}
		return parts
	}
	var pieces []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &pieces) == nil {
		for _, p := range pieces {
			if p.Text != "" {
				parts = append(parts, p.Text)
			}
		}
	}
	return parts
}
