package sse

import (
	"bytes"
	"context"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/terminal"
)

// Results brings large outputs back: *claimcheck.Desk. The error is of trouble
// that may pass.
type Results interface {
	Terminal(ctx context.Context, t *terminal.Terminal) (_ *terminal.Terminal, release func(), err error)
}

// whole returns an event as clients get it: a terminal whose output lies in the
// blob store has it. The caller releases it once it is sent.
func (a *API) whole(ctx context.Context, e eventlog.Entry) (_ eventlog.Entry, release func(), err error) {
	if !e.ID.Fence.Terminal() || !bytes.Contains(e.Data, []byte(`"output_ref"`)) {
		return e, func() {}, nil
	}
	ev, err := e.Event()
	if err != nil || ev.Result == nil {
		return e, func() {}, nil //nolint:nilerr // not an event of ours: it is passed on as it is
	}
	if ev.Result, release, err = a.p.Results.Terminal(ctx, ev.Result); err != nil {
		return e, nil, err
	}
	out, err := eventlog.EntryOf(ev)
	if err != nil {
		release()
		return e, nil, err
	}
	return out, release, nil
}
