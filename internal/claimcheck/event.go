package claimcheck

import (
	"bytes"
	"context"

	"github.com/penstock/penstock/internal/eventlog"
)

// Event returns an event as clients get it: a terminal whose output lies in the
// store has it. An error is returned only for trouble that may pass. The caller
// releases the event once it is sent.
func (d *Desk) Event(ctx context.Context, e eventlog.Entry) (_ eventlog.Entry, release func(), err error) {
	if !e.ID.Fence.Terminal() || !bytes.Contains(e.Data, []byte(`"output_ref"`)) {
		return e, func() {}, nil
	}
	ev, err := e.Event()
	if err != nil || ev.Result == nil {
		return e, func() {}, nil //nolint:nilerr // not an event of ours: it is passed on as it is
	}
	if ev.Result, release, err = d.Terminal(ctx, ev.Result); err != nil {
		return e, nil, err
	}
	out, err := eventlog.EntryOf(ev)
	if err != nil {
		release()
		return e, nil, err
	}
	return out, release, nil
}
