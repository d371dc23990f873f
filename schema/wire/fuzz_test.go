package wire_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/wire"
)

// seed adds every golden file, with one header at a time for the fuzzer to turn.
func seed(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/v1/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("%d golden files: %v", len(files), err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		r := fromGolden(f, raw)
		for _, h := range r.Headers {
			f.Add(r.Key, r.Value, h.Key, h.Value)
		}
	}
	f.Add([]byte(id), value(f, nil), wire.HeaderDeadline, []byte("9999-12-31T23:59:59-01:00"))
	f.Add([]byte(id), []byte(`{"data":{}}`), wire.HeaderContentType, []byte("application/cloudevents+json"))
}

// turned is a well-formed record with the fuzzer's key, value and one header.
func turned(base wire.Record, key, value []byte, name string, header []byte) wire.Record {
	return with(wire.Record{Key: key, Value: value, Headers: base.Headers}, name, string(header))
}

func FuzzDecodeTask(f *testing.F) {
	seed(f)
	base, err := wire.EncodeTask(chat(), waiting(), traceparent)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte) {
		tk, p, err := wire.DecodeTask(turned(base, key, value, name, header))
		if err != nil {
			if !errors.Is(err, wire.ErrRecord) {
				t.Fatalf("%v is not ErrRecord", err)
			}
			return
		}
		// The first writing settles spacing and zones; from then on nothing moves.
		tk, p = rewrite(t, tk, p)
		again, q := rewrite(t, tk, p)
		if diff := cmp.Diff(tk, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("task changes when written again:\n%s", diff)
		}
		if diff := cmp.Diff(p, q, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("progress changes when written again:\n%s", diff)
		}
	})
}

func rewrite(t *testing.T, tk *task.Task, p task.Progress) (*task.Task, task.Progress) {
	t.Helper()
	r, err := wire.EncodeTask(tk, p, "")
	if err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	again, q, err := wire.DecodeTask(r)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v\n%s", err, r.Value)
	}
	return again, q
}

func FuzzDecodeTerminal(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte) {
		end, err := wire.DecodeTerminal(turned(wire.Record{}, key, value, name, header))
		if err != nil {
			if end != nil || !errors.Is(err, wire.ErrRecord) {
				t.Fatalf("%v with %v", end, err)
			}
			return
		}
		for range 2 {
			r, err := wire.EncodeTerminal(end, "")
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			again, err := wire.DecodeTerminal(r)
			if err != nil {
				t.Fatalf("what was written cannot be read: %v\n%s", err, r.Value)
			}
			second, err := wire.EncodeTerminal(again, "")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r, second); diff != "" {
				t.Fatalf("terminal changes when written again:\n%s", diff)
			}
			end = again
		}
	})
}

func FuzzDecodeWebhook(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte) {
		w, err := wire.DecodeWebhook(turned(wire.Record{}, key, value, name, header))
		if err != nil {
			if w != nil || !errors.Is(err, wire.ErrRecord) {
				t.Fatalf("%v with %v", err, w)
			}
			return
		}
		if _, err := wire.EncodeWebhook(w, ""); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}

func FuzzDecodeConversation(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte) {
		c, err := wire.DecodeConversation(turned(wire.Record{}, key, value, name, header))
		if err != nil {
			if c != nil || !errors.Is(err, wire.ErrRecord) {
				t.Fatalf("%v with %v", err, c)
			}
			return
		}
		if _, err := wire.EncodeConversation(c, ""); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}

func FuzzDecodeDeadLetter(f *testing.F) {
	seed(f)
	base := mustDeadLetter(f, wire.Record{})
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte) {
		r := turned(base, key, value, name, header)
		l, err := wire.DecodeDeadLetter(r)
		if err != nil {
			if !errors.Is(err, wire.ErrRecord) {
				t.Fatalf("%v is not ErrRecord", err)
			}
			return
		}
		// The first writing cuts a long message; from then on nothing moves.
		l = bury(t, r, l)
		if diff := cmp.Diff(l, bury(t, r, l), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("letter changes when written again:\n%s", diff)
		}
	})
}

func bury(t *testing.T, r wire.Record, l deadletter.Letter) deadletter.Letter {
	t.Helper()
	written, err := wire.EncodeDeadLetter(r, l)
	if err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	again, err := wire.DecodeDeadLetter(written)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	return again
}
