package claimcheck

import (
	"errors"
	"time"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/schema/fault"
)

// retryAfter is the wait that is asked for while the store does not answer.
const retryAfter = time.Second

// Fault says what a failure to bring content back means: BlobLost if the store
// answers and has not got it as it was put, else Unavailable, which is nobody's
// fault who waits. Nil is no fault.
func Fault(err error) *fault.Error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrCorrupt), errors.Is(err, blob.ErrRef), errors.Is(err, ErrContent):
		return &fault.Error{Code: fault.BlobLost, Message: "the payload is no longer in the blob store as it was put; redrive the task once it is back", Err: err}
	case errors.Is(err, blob.ErrTooLarge):
		return away("the payload is larger than blob_max_bytes of this service: set it as in the producer", err)
	case errors.Is(err, ErrNoStore):
		return away("the payload lies in a blob store, and this service has none: set blob_url", err)
	}
	return away("the blob store does not answer", err)
}

func away(message string, err error) *fault.Error {
	return &fault.Error{Code: fault.Unavailable, Class: fault.ClassSystem, Message: message, RetryAfter: retryAfter, Err: err}
}
