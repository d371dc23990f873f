package wire_test

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
	"pgregory.net/rapid"
)

// instant draws any time a record can carry, or none.
func instant() *rapid.Generator[time.Time] {
	first, last := time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC).Unix(), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).Unix()
	return rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.IntRange(0, 3).Draw(t, "none") == 0 {
			return time.Time{}
		}
		zone := time.FixedZone("", rapid.IntRange(-11, 11).Draw(t, "zone")*3600)
		return time.Unix(rapid.Int64Range(first+86400, last-86400).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).In(zone)
	})
}

// word draws a string that may need escapes, and is never empty.
func word() *rapid.Generator[string] { return rapid.StringN(1, 8, -1) }

func attempts() *rapid.Generator[[]task.Attempt] {
	one := rapid.Custom(func(t *rapid.T) task.Attempt {
		return task.Attempt{
			N: rapid.IntRange(1, 300).Draw(t, "n"), Fence: strconv.FormatUint(rapid.Uint64().Draw(t, "fence"), 10), Worker: word().Draw(t, "worker"),
			StartedAt: instant().Draw(t, "started"), EndedAt: instant().Draw(t, "ended"),
			Code: rapid.SampledFrom(codes()).Draw(t, "code"), Status: rapid.IntRange(0, 599).Draw(t, "status"), Message: rapid.String().Draw(t, "message"),
		}
	})
	return rapid.Custom(func(t *rapid.T) []task.Attempt {
		if all := rapid.SliceOfN(one, 0, task.MaxHistory).Draw(t, "attempts"); len(all) > 0 {
			return all
		}
		return nil
	})
}

func codes() []string {
	var out []string
	for _, c := range fault.Codes() {
		out = append(out, string(c))
	}
	return out
}

func TestTasksAndProgressReadBackAsWritten(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		tk := embedding()
		tk.Tenant, tk.Model = word().Draw(r, "tenant"), word().Draw(r, "model")
		tk.OrderingKey, tk.Payload.Text = rapid.String().Draw(r, "ordering key"), rapid.String().Draw(r, "text")
		tk.Labels = map[string]string{word().Draw(r, "label"): rapid.String().Draw(r, "value")}
		tk.Params = task.Params{"seed": json.RawMessage(strconv.Itoa(rapid.Int().Draw(r, "seed")))}
		p := task.Progress{
			Generation: rapid.Uint8().Draw(r, "generation"), Hop: rapid.Uint16Range(0, event.MaxHop).Draw(r, "hop"),
			Attempts: rapid.IntRange(0, 1000).Draw(r, "attempts"), Losses: rapid.IntRange(0, 1000).Draw(r, "losses"),
			History: attempts().Draw(r, "history"), FirstFailure: instant().Draw(r, "first failure"),
			ReturnTopic: rapid.String().Draw(r, "return topic"), NotBefore: instant().Draw(r, "not before"),
			RedriveJob: rapid.String().Draw(r, "job"), Deadline: instant().Draw(r, "deadline"),
		}
		rec, err := wire.EncodeTask(tk, p, rapid.String().Draw(r, "traceparent"))
		if err != nil {
			r.Fatal(err)
		}
		got, q, err := wire.DecodeTask(rec)
		if err != nil {
			r.Fatal(err)
		}
		if !p.Deadline.IsZero() {
			tk.Deadline = p.Deadline
		}
		if diff := cmp.Diff(tk, got); diff != "" {
			r.Fatalf("task (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(p, q); diff != "" {
			r.Fatalf("progress (-want +got):\n%s", diff)
		}
	})
}

func TestTerminalsReadBackAsWritten(t *testing.T) {
	ends := []task.Status{task.Succeeded, task.Failed, task.Cancelled, task.Expired, task.Dead, terminal.Reopened}
	rapid.Check(t, func(r *rapid.T) {
		end := succeeded()
		end.TaskID, end.Status = task.ID(rapid.String().Draw(r, "id")), rapid.SampledFrom(ends).Draw(r, "status")
		end.Output.Text, end.Backend = rapid.String().Draw(r, "text"), rapid.String().Draw(r, "backend")
		end.Attempts, end.CreatedAt, end.EndedAt = attempts().Draw(r, "attempts"), instant().Draw(r, "created"), instant().Draw(r, "ended")
		end.Generation = rapid.Ptr(rapid.Uint8(), true).Draw(r, "generation")
		rec, err := wire.EncodeTerminal(end, "")
		if err != nil {
			r.Fatal(err)
		}
		got, err := wire.DecodeTerminal(rec)
		if err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(end, got); diff != "" {
			r.Fatalf("terminal (-want +got):\n%s", diff)
		}
	})
}

func TestLettersReadBackAsWritten(t *testing.T) {
	dispositions := []deadletter.Disposition{deadletter.Exhausted, deadletter.Undecodable, deadletter.SuspectedKiller, deadletter.Oversize}
	rapid.Check(t, func(r *rapid.T) {
		l := letter(nil)
		l.TaskID, l.Tenant, l.Model = task.ID(rapid.String().Draw(r, "id")), rapid.String().Draw(r, "tenant"), rapid.String().Draw(r, "model")
		l.Disposition = rapid.SampledFrom(dispositions).Draw(r, "disposition")
		l.Code = fault.Code(rapid.SampledFrom(codes()).Draw(r, "code"))
		l.Message = rapid.StringN(0, -1, deadletter.MaxMessage).Draw(r, "message")
		l.Attempts, l.History = rapid.IntRange(0, 1000).Draw(r, "attempts"), attempts().Draw(r, "history")
		l.Origin.Partition, l.Origin.Offset = rapid.Int32Min(0).Draw(r, "partition"), rapid.Int64Range(0, 1<<62).Draw(r, "offset")
		l.Origin.Timestamp, l.Generation = instant().Draw(r, "timestamp"), rapid.Uint8().Draw(r, "generation")
		l.FirstFailure, l.DeadAt, l.RedriveJob = instant().Draw(r, "first"), instant().Draw(r, "dead"), rapid.String().Draw(r, "job")
		rec, err := wire.EncodeDeadLetter(wire.Record{}, l)
		if err != nil {
			r.Fatal(err)
		}
		got, err := wire.DecodeDeadLetter(rec)
		if err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(l, got); diff != "" {
			r.Fatalf("letter (-want +got):\n%s", diff)
		}
	})
}
