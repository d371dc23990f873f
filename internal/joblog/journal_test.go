package joblog_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/wire"
)

// note is an entry of the test's own jobs.
type note struct {
	Type string    `json:"type"`
	Job  string    `json:"job"`
	At   time.Time `json:"at"`
}

func (n note) Encode(at time.Time) (string, []byte, error) {
	n.At = at
	value, err := joblog.Encode(n)
	return n.Job, value, err
}

func (n note) String() string { return n.Type + " of " + n.Job }

// paper is a control topic whose broker's clock is an hour ahead.
type paper struct {
	records []tasktopic.Read
	err     error
}

func (p *paper) BrokerNow() time.Time { return time.Now().Add(time.Hour) }

func (p *paper) Control(_ context.Context, key string, value []byte) (tasktopic.Ack, error) {
	if p.err != nil {
		return tasktopic.Ack{}, p.err
	}
	at := int64(len(p.records))
	p.records = append(p.records, tasktopic.Read{Offset: at, Time: p.BrokerNow(), Record: wire.Control(key, value, p.BrokerNow())})
	return tasktopic.Ack{Offset: at}, nil
}

// folded is what a journal applied.
type folded struct {
	Job   string
	At    time.Time // by the broker's clock
	Heard time.Time
}

func openJournal(p *paper, out *[]folded) (*joblog.Journal[note], *joblog.Mark, prometheus.Counter) {
	mark, bad := joblog.NewMark(), prometheus.NewCounter(prometheus.CounterOpts{Name: "undecodable"})
	return joblog.NewJournal(joblog.JournalParams[note]{
		Publisher: p, Mark: mark, Log: slog.New(slog.DiscardHandler), Undecodable: bad,
		DecodeFunc: func(value []byte) (note, bool, error) { return joblog.Decode[note](value, "note.") },
		ApplyFunc:  func(n note, heard time.Time) { *out = append(*out, folded{n.Job, n.At, heard}) },
	}), mark, bad
}

func TestAJournalReadsWhatItSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p paper
		var got []folded
		j, mark, bad := openJournal(&p, &got)
		said := p.BrokerNow().UTC()
		for _, n := range []note{{Type: "note.a", Job: "one"}, {Type: "other.a", Job: "a stranger's"}, {Type: "note.b", Job: "two"}} {
			if at, err := j.Say(t.Context(), n); err != nil || at != int64(len(p.records)-1) {
				t.Fatalf("%s lies at %d, %v", n, at, err)
			}
		}
		p.records = append(p.records, tasktopic.Read{Offset: 3, Record: wire.Control("three", []byte("{"), said)})
		time.Sleep(time.Minute)
		j.Fold(p.records)
		// What was there at the start was heard when the log says.
		want := []folded{{"one", said, said}, {"two", said, said}}
		if diff := cmp.Diff(want, got); diff != "" || testutil.ToFloat64(bad) != 1 {
			t.Errorf("folded, with %v that cannot be read: %s", testutil.ToFloat64(bad), diff)
		}
		if err := mark.Await(t.Context(), 3); err != nil {
			t.Errorf("the mark is not past what was read: %v", err)
		}
	})
}

func TestAJournalHearsByItsOwnClockOnceItHasCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p paper
		var got []folded
		j, _, _ := openJournal(&p, &got)
		j.Fold(nil)
		select {
		case <-j.Ready():
			t.Error("it is ready before it caught up")
		default:
		}
		j.CatchUp()
		j.CatchUp() // is no harm
		if <-j.Ready(); !j.CaughtUp() {
			t.Error("it caught up and does not say so")
		}
		if _, err := j.Say(t.Context(), note{Type: "note.a", Job: "one"}); err != nil {
			t.Fatal(err)
		}
		j.Fold(p.records)
		if len(got) != 1 || !got[0].Heard.Equal(time.Now()) {
			t.Errorf("heard %+v at %s", got, time.Now())
		}
	})
}

func TestAnEntryThatIsNotWrittenIsNamed(t *testing.T) {
	p := paper{err: errors.New("kafka is away")}
	j, _, _ := openJournal(&p, new([]folded))
	if _, err := j.Say(t.Context(), note{Type: "note.a", Job: "one"}); !errors.Is(err, p.err) || !strings.Contains(err.Error(), "write note.a of one") {
		t.Errorf("got %v", err)
	}
}
