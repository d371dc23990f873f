package sse

import (
	"context"

	"github.com/penstock/penstock/internal/eventlog"
)

// Results brings large outputs back: *claimcheck.Desk. The error is of trouble
// that may pass.
type Results interface {
	Event(ctx context.Context, e eventlog.Entry) (_ eventlog.Entry, release func(), err error)
}
