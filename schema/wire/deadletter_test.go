package wire_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/wire"
)

func mustDeadLetter(t testing.TB, original wire.Record) wire.Record {
	t.Helper()
	r, err := wire.EncodeDeadLetter(original, letter(original.Value))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestADeadLetterWithBadLineageIsRefusedWithTheReason(t *testing.T) {
	for name, bad := range map[string]string{
		wire.HeaderDLAttempts:   "many",
		wire.HeaderDLPartition:  "2147483648",
		wire.HeaderDLOffset:     "-1",
		wire.HeaderDLGeneration: "256",
		wire.HeaderDLTimestamp:  "now",
		wire.HeaderDLFirst:      "now",
		wire.HeaderDLAt:         "now",
		wire.HeaderDLHistory:    "{",
	} {
		t.Run(name, func(t *testing.T) {
			r := with(mustDeadLetter(t, wire.Record{}), name, bad)
			if _, err := wire.DecodeDeadLetter(r); !errors.Is(err, wire.ErrRecord) || !strings.Contains(err.Error(), name) {
				t.Errorf("DecodeDeadLetter: %v, want ErrRecord about %s", err, name)
			}
		})
	}
	for name, r := range map[string]wire.Record{
		"no lineage":     {Value: []byte("{}")},
		"half of it":     {Headers: []wire.Header{{Key: wire.HeaderDLTask, Value: []byte(id)}}},
		"only another's": {Headers: []wire.Header{{Key: "kafka_dlt-original-topic", Value: []byte("t")}}},
	} {
		if _, err := wire.DecodeDeadLetter(r); !errors.Is(err, wire.ErrRecord) || !strings.Contains(err.Error(), wire.HeaderDLDisposition) {
			t.Errorf("%s: %v, want ErrRecord about %s", name, err, wire.HeaderDLDisposition)
		}
	}
}

func TestTheOriginalBytesAreUntouched(t *testing.T) {
	original := wire.Record{
		Key: []byte{0, 0xff}, Value: []byte("\xff\x00 not JSON"),
		Headers: []wire.Header{{Key: "x", Value: []byte{0xff}}, {Key: "x", Value: []byte("again")}, {Key: "penstock_dlt", Value: []byte("theirs")}},
	}
	before := clone(original)
	r := mustDeadLetter(t, original)
	if diff := cmp.Diff(before, original); diff != "" {
		t.Errorf("the record given was changed:\n%s", diff)
	}
	if !bytes.Equal(r.Key, original.Key) || !bytes.Equal(r.Value, original.Value) {
		t.Errorf("key %q, value %q", r.Key, r.Value)
	}
	if diff := cmp.Diff(original.Headers, wire.OriginalHeaders(r)); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestASecondDeathHasOnlyItsOwnLineage(t *testing.T) {
	first := mustDeadLetter(t, wire.Record{Key: []byte(id), Value: value(t, nil)})
	again := letter(first.Value)
	again.Generation, again.History, again.FirstFailure, again.RedriveJob = 1, nil, accepted, "job-7"
	r, err := wire.EncodeDeadLetter(first, again)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range r.Headers {
		if slices.ContainsFunc(r.Headers[:i], func(o wire.Header) bool { return o.Key == h.Key }) {
			t.Errorf("header %s is there twice", h.Key)
		}
	}
	got, err := wire.DecodeDeadLetter(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(again, got); diff != "" {
		t.Errorf("letter (-want +got):\n%s", diff)
	}
}
