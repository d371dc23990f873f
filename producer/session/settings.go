package session

import (
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
)

// settings checks what JSON Schema cannot, and says how long the session lives.
func (d *Desk) settings(s api.SessionSettings) (*conversation.Settings, time.Duration, error) {
	if len(s.Instructions) > api.MaxInstructions {
		return nil, 0, tooLarge("instructions", "has %d bytes, at most %d are allowed", len(s.Instructions), api.MaxInstructions)
	}
	for name, value := range s.Labels {
		if len(name) > api.MaxLabel || len(value) > api.MaxLabel {
			return nil, 0, tooLarge("labels", "a name or value is longer than %d bytes", api.MaxLabel)
		}
	}
	ttl, err := d.ttl(s.TTL)
	if err != nil {
		return nil, 0, err
	}
	out := &conversation.Settings{Instructions: s.Instructions, MaxTokens: s.MaxTokens}
	if s.TTL != "" {
		out.TTLSeconds = int(ttl / time.Second)
	}
	if len(s.Labels) > 0 {
		out.Labels = s.Labels
	}
	return out, ttl, nil
}

// ttl is as long as results can be read, unless the caller wants less: what
// cannot be read cannot be remembered.
func (d *Desk) ttl(text string) (time.Duration, error) {
	most := d.p.Results.Params().TTL
	if text == "" {
		return most, nil
	}
	ttl, err := time.ParseDuration(text)
	if err != nil || ttl < api.MinSessionTTL || ttl > most {
		return 0, &validate.Error{
			Code: fault.Malformed, Path: "ttl", Offset: -1,
			Reason: fmt.Sprintf("expected a duration from %s to %s, the time to live of results", api.MinSessionTTL, most),
		}
	}
	return ttl.Truncate(time.Second), nil
}

func tooLarge(path, format string, args ...any) error {
	return &validate.Error{Code: fault.TooLarge, Path: path, Offset: -1, Reason: fmt.Sprintf(format, args...)}
}
