package wire_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/wire"
)

func TestAConversationThatDoesNotTellItsStepIsRefused(t *testing.T) {
	for name, spoil := range map[string]struct {
		of    string
		apply func(*conversation.Record)
	}{
		"another version":                {"conversation-opened", func(c *conversation.Record) { c.SchemaVersion = 2 }},
		"an unknown step":                {"conversation-opened", func(c *conversation.Record) { c.Step = "begun" }},
		"a session without settings":     {"conversation-opened", func(c *conversation.Record) { c.Settings = nil }},
		"a session without an end":       {"conversation-opened", func(c *conversation.Record) { c.Until = time.Time{} }},
		"kept settings that are none":    {"conversation-kept", func(c *conversation.Record) { c.Settings = nil }},
		"a turn of no task":              {"conversation-turned", func(c *conversation.Record) { c.TaskID = "" }},
		"a turn of no session":           {"conversation-turned", func(c *conversation.Record) { c.SessionID = "" }},
		"a turn without a lane":          {"conversation-turned", func(c *conversation.Record) { c.Lane = "" }},
		"a turn without messages":        {"conversation-turned", func(c *conversation.Record) { c.Content = nil }},
		"a turn with messages twice":     {"conversation-turned-claimcheck", func(c *conversation.Record) { c.Content = json.RawMessage("[]") }},
		"a request of nobody":            {"conversation-stored", func(c *conversation.Record) { c.TaskID = "" }},
		"a request that asks nothing":    {"conversation-stored", func(c *conversation.Record) { c.Content = nil }},
		"a request that is a session's":  {"conversation-stored", func(c *conversation.Record) { c.SessionID = "7" }},
		"a deletion of neither":          {"conversation-deleted", func(c *conversation.Record) { c.SessionID = "" }},
		"a stored one without its task":  {"conversation-stored-deleted", func(c *conversation.Record) { c.TaskID = "" }},
		"a stored response without end":  {"conversation-stored", func(c *conversation.Record) { c.Until = time.Time{} }},
		"a turn that is never forgotten": {"conversation-turned", func(c *conversation.Record) { c.Until = time.Time{} }},
	} {
		t.Run(name, func(t *testing.T) {
			c := conversations()[spoil.of]
			spoil.apply(c)
			r, err := wire.EncodeConversation(c, "")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := wire.DecodeConversation(r); !errors.Is(err, wire.ErrRecord) {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
	r, err := wire.EncodeConversation(conversations()["conversation-turned"], "")
	if err != nil {
		t.Fatal(err)
	}
	r.Key = []byte("session.other")
	if got, err := wire.DecodeConversation(r); !errors.Is(err, wire.ErrRecord) {
		t.Errorf("a turn of another session than its key: %+v, %v", got, err)
	}
	if _, err := wire.DecodeConversation(wire.Record{Value: []byte("no JSON")}); !errors.Is(err, wire.ErrRecord) {
		t.Errorf("no JSON: %v", err)
	}
}
