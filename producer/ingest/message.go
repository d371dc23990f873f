package ingest

import (
	"time"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// Labels that keep what a message said of itself.
const (
	labelMessageID = "message_id"
	labelTimestamp = "timestamp"
)

// OfMessage turns a message into a submission without a model: the rules find
// one. The message's own id is its idempotency key. The tenant is the caller's
// to set.
func OfMessage(r api.ForwardRequest, body []byte, key string) (Submission, error) {
	switch {
	case r.MessageID == "":
	case key != "" && key != r.MessageID:
		return Submission{}, &validate.Error{
			Code: fault.Malformed, Path: "message_id", Offset: -1,
			Reason: "differs from the Idempotency-Key; give one of them",
		}
	default:
		key = r.MessageID
	}
	labels := map[string]string{}
	if r.MessageID != "" {
		labels[labelMessageID] = r.MessageID
	}
	if r.Timestamp != nil {
		labels[labelTimestamp] = r.Timestamp.UTC().Format(time.RFC3339Nano)
	}
	return Submission{
		Request: &api.SubmitRequest{Source: r.Source, Payload: r.Payload, SessionID: r.SessionID, Memory: r.Memory, Labels: labels, Webhook: r.Webhook},
		Key:     key,
		Body:    body,
	}, nil
}
