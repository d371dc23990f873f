package follow

import (
	"encoding/json"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// before is what a watcher must be told before an event, if anything: that an
// attempt began whose beginning is lost, that events are lost, or that the end
// is of another attempt than the one it was shown. It is asked again after each.
func (w *watch) before(e eventlog.Entry) (eventlog.Entry, bool) {
	switch {
	case w.done, w.ends, e.ID.Fence == 0, !w.last.Less(e.ID):
		return e, false
	case e.ID.Fence.Terminal():
		return w.beforeEnd(e)
	case w.shown != 0 && w.shown != e.ID.Fence && e.ID.Seq > 0:
		w.countLost()
		return w.told(event.Restart, event.ID{Fence: e.ID.Fence}, reasonBegan), true
	case e.Follows(w.last), e.Type() == event.Snapshot, e.Type() == event.Gap:
		return e, false
	default:
		w.countLost()
		return w.told(event.Gap, event.ID{Fence: e.ID.Fence, Seq: e.ID.Seq - 1}, reasonLost), true
	}
}

// Reasons that clients are told.
const (
	reasonBegan = "a new attempt began"
	reasonLost  = "events were lost; the end has the full text"
	reasonOther = "the end is of another attempt"
)

func (w *watch) countLost() { w.stream.f.metrics.repairs.WithLabelValues(repairLost).Inc() }

func (w *watch) told(t event.Type, id event.ID, reason string) eventlog.Entry {
	return eventlog.Entry{ID: id, Data: []byte(`{"type":"` + string(t) + `","task_id":"` + string(w.id) + `","reason":"` + reason + `"}`)}
}

// beforeEnd is a restart with the full text before an end whose text is of
// another attempt than the one that was shown. An output that is kept aside
// comes with the end alone.
func (w *watch) beforeEnd(e eventlog.Entry) (eventlog.Entry, bool) {
	id := event.LastRestartID(e.ID.Fence.Generation())
	if w.shown == 0 || !w.last.Less(id) {
		return e, false
	}
	fence, text, ok := producedBy(e)
	if !ok || fence == w.shown.String() {
		return e, false
	}
	told, err := eventlog.EntryOf(event.Event{ID: id, Type: event.Restart, TaskID: w.id, Text: text, Reason: reasonOther})
	return told, err == nil
}

// producedBy is the attempt that an output is of, and its text; false for an
// end without output.
func producedBy(e eventlog.Entry) (fence, text string, ok bool) {
	var end struct {
		Result struct {
			Fence     string       `json:"fence"`
			Output    *task.Output `json:"output"`
			OutputRef *task.Ref    `json:"output_ref"`
		} `json:"result"`
	}
	if err := json.Unmarshal(e.Data, &end); err != nil {
		return "", "", false // unreadable for the watcher too
	}
	r := end.Result
	if r.Output != nil {
		text = r.Output.Text
	}
	return r.Fence, text, r.Fence != "" && (r.Output != nil || r.OutputRef != nil)
}

// restarted turns the first event of an attempt into one that tells a watcher
// to forget what it has seen of the attempt before.
func restarted(e eventlog.Entry) eventlog.Entry {
	full, err := e.Event()
	if err != nil {
		return e // unreadable for the watcher too
	}
	full.Type, full.Reason = event.Restart, reasonBegan
	out, err := eventlog.EntryOf(full)
	if err != nil {
		return e
	}
	return out
}
