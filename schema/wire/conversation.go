package wire

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/task"
)

// EncodeConversation writes a record of `penstock.conversations`.
func EncodeConversation(c *conversation.Record, traceparent string) (Record, error) {
	value, err := marshal(c)
	if err != nil {
		return Record{}, fmt.Errorf("encode conversation record: %w", err)
	}
	h := make(headerList, 0, 10)
	subject := c.SessionID
	if subject == "" {
		subject = string(c.TaskID)
	}
	h.attributes(conversationID(c), TypeConversation, "/penstock", subject, c.At)
	h.add(HeaderTenant, c.Tenant)
	h.add(HeaderTraceparent, traceparent)
	return Record{Key: []byte(c.Key()), Value: value, Headers: h}, nil
}

// conversationID names what a record tells. What a task brings is told once;
// settings and deletions can follow one another.
func conversationID(c *conversation.Record) string {
	if c.Step == conversation.Turned || c.Step == conversation.Stored {
		return string(c.TaskID) + "/" + string(c.Step)
	}
	at := c.At
	if c.Step == conversation.Kept { // At is that of the settings
		at = c.Until
	}
	return c.Key() + "/" + string(c.Step) + "/" + strconv.FormatInt(at.UnixMicro(), 10)
}

// DecodeConversation reads a record of `penstock.conversations`.
func DecodeConversation(r Record) (*conversation.Record, error) {
	value, err := dataOf(r)
	if err != nil {
		return nil, err
	}
	var c conversation.Record
	if err := json.Unmarshal(value, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	switch {
	case c.SchemaVersion != task.SchemaVersion:
		return nil, fmt.Errorf("%w: schema version %d, want %d", ErrRecord, c.SchemaVersion, task.SchemaVersion)
	case string(r.Key) != c.Key():
		return nil, fmt.Errorf("%w: the key is not that of its session or task", ErrRecord)
	case !told(&c):
		return nil, fmt.Errorf("%w: step %q lacks what it should tell", ErrRecord, c.Step)
	}
	return &c, nil
}

// told reports whether a record tells what its step must.
func told(c *conversation.Record) bool {
	content := (len(c.Content) > 0) != (c.ContentRef != nil)
	switch c.Step {
	case conversation.Opened, conversation.Kept:
		return c.SessionID != "" && c.Settings != nil && !c.Until.IsZero()
	case conversation.Turned:
		return c.SessionID != "" && c.TaskID != "" && c.Lane != "" && content && !c.Until.IsZero()
	case conversation.Stored:
		return c.SessionID == "" && c.TaskID != "" && content && !c.Until.IsZero()
	case conversation.Deleted:
		return c.SessionID != "" || c.TaskID != ""
	}
	return false
}
