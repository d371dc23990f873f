package claimcheck_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/claimcheck/claimchecktest"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func held(s *claimchecktest.Store, content string) *task.Ref {
	ref := s.Hold(content)
	return &ref
}

func TestAPayloadComesBackAsItWas(t *testing.T) {
	desk := claimcheck.New(claimchecktest.New(), claimcheck.Params{})
	large := strings.Repeat("<ü>", claimcheck.Inline/4+1)
	for name, p := range map[string]task.Payload{
		"a text":     {Text: large},
		"messages":   {Messages: []byte(`[{"role":"user","content":"` + large + `"}]`), Context: []byte(`{"a":1}`)},
		"inputs":     {Inputs: []json.RawMessage{[]byte(`"` + large + `"`), []byte(`[1,2.50]`)}},
		"by context": {Text: "short", Context: []byte(`"` + large + `"`)},
	} {
		in, err := desk.Deposit(t.Context(), p)
		if err != nil || in.Ref == nil || in.Size() != 0 {
			t.Fatalf("%s: carries %d bytes, %v", name, in.Size(), err)
		}
		out, release, err := desk.Collect(t.Context(), in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		release()
		if diff := cmp.Diff(p, out); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestSmallContentsAreLeftAlone(t *testing.T) {
	store := claimchecktest.New()
	store.Fail(blob.ErrUnavailable)
	desk := claimcheck.New(store, claimcheck.Params{})
	for n, leaves := range map[int]bool{claimcheck.Inline - 1: false, claimcheck.Inline: false, claimcheck.Inline + 1: true} {
		p := task.Payload{Text: strings.Repeat("x", n)}
		if _, err := desk.Deposit(t.Context(), p); (err != nil) != leaves {
			t.Errorf("a payload of %d bytes: %v", n, err)
		}
		o := &task.Output{Text: strings.Repeat("x", n)}
		if ref, err := desk.DepositOutput(t.Context(), o); (err != nil) != leaves || ref != nil || desk.Wants(o) != leaves {
			t.Errorf("an output of %d bytes: %v, %v", n, ref, err)
		}
	}
}

func TestWithoutAStoreNothingIsJudgedLost(t *testing.T) {
	desk := claimcheck.New(nil, claimcheck.Params{})
	large := task.Payload{Text: strings.Repeat("x", 10<<20)}
	if got, err := desk.Deposit(t.Context(), large); err != nil || got.Ref != nil {
		t.Errorf("deposit: %v, %v", got.Ref, err)
	}
	_, _, err := desk.Collect(t.Context(), task.Payload{Ref: &task.Ref{Key: "a", Bytes: 1}})
	if f := claimcheck.Fault(err); f.Code != fault.Unavailable || f.Class != fault.ClassSystem || !strings.Contains(f.Message, "blob_url") {
		t.Errorf("collect: %v, want trouble of the system with its cure", f)
	}
	if desk.Limit() != 0 {
		t.Errorf("limit %d", desk.Limit())
	}
}

func TestWhatAFailureMeans(t *testing.T) {
	for _, c := range []struct {
		err   error
		code  fault.Code
		class fault.Class
	}{
		{blob.ErrNotFound, fault.BlobLost, fault.ClassPermanent},
		{blob.ErrCorrupt, fault.BlobLost, fault.ClassPermanent},
		{blob.ErrRef, fault.BlobLost, fault.ClassPermanent},
		{blob.ErrUnavailable, fault.Unavailable, fault.ClassSystem},
		{blob.ErrTooLarge, fault.Unavailable, fault.ClassSystem},
		{context.DeadlineExceeded, fault.Unavailable, fault.ClassSystem},
	} {
		store := claimchecktest.New()
		store.Fail(c.err)
		_, _, err := claimcheck.New(store, claimcheck.Params{}).Collect(t.Context(), task.Payload{Ref: &task.Ref{}})
		if f := claimcheck.Fault(err); f.Code != c.code || fault.ClassOf(f) != c.class || !errors.Is(f, c.err) {
			t.Errorf("%v means %s of class %s, want %s of class %s", c.err, f.Code, fault.ClassOf(f), c.code, c.class)
		}
	}
	if claimcheck.Fault(nil) != nil {
		t.Error("no error means a fault")
	}
}

func TestABlobThatIsNoPayloadIsLost(t *testing.T) {
	store := claimchecktest.New()
	desk := claimcheck.New(store, claimcheck.Params{})
	for _, content := range []string{``, `null`, `{}`, `[]`, `{"text":""}`, `{"ref":{"key":"a"}}`, `{"text":"a","ref":{"key":"a"}}`, `{"text":"secret`} {
		_, _, err := desk.Collect(t.Context(), task.Payload{Ref: held(store, content)})
		if !errors.Is(err, claimcheck.ErrContent) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want ErrContent without the content", content, err)
		}
	}
}

func TestAResultIsResolvedForItsReader(t *testing.T) {
	store := claimchecktest.New()
	desk := claimcheck.New(store, claimcheck.Params{})
	output := &task.Output{Text: strings.Repeat("x", claimcheck.Inline+1), FinishReason: "stop"}
	ref, err := desk.DepositOutput(t.Context(), output)
	if err != nil {
		t.Fatal(err)
	}
	end := &terminal.Terminal{TaskID: "t", Status: task.Succeeded, OutputRef: ref, FinishReason: "stop"}
	lost := &terminal.Terminal{TaskID: "t", Status: task.Succeeded, OutputRef: &task.Ref{Key: "no such"}}
	plain := &terminal.Terminal{TaskID: "t", Status: task.Succeeded, Output: &task.Output{Text: "short"}}

	whole, release, err := desk.Terminal(t.Context(), end)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if diff := cmp.Diff(&terminal.Terminal{TaskID: "t", Status: task.Succeeded, Output: output}, whole); diff != "" {
		t.Error(diff)
	}
	if end.Output != nil || end.OutputRef != ref {
		t.Error("the terminal itself was changed")
	}
	view, release, err := desk.Task(t.Context(), api.OfTerminal(end, 0))
	if err != nil || view.Status != task.Succeeded || view.OutputRef != nil || !cmp.Equal(view.Output, output) {
		t.Errorf("task %+v, %v", view.Status, err)
	}
	release()

	gone, release, err := desk.Terminal(t.Context(), lost)
	if err != nil || gone.Status != task.Succeeded || gone.Output != nil || gone.Error == nil || gone.Error.Code != fault.BlobLost {
		t.Errorf("a lost result: %+v, %v, want succeeded with blob_lost", gone, err)
	}
	release()
	if got, _, err := desk.Terminal(t.Context(), plain); err != nil || !cmp.Equal(got, plain) {
		t.Errorf("one that is not large: %+v, %v", got, err)
	}
	store.Fail(blob.ErrUnavailable)
	if _, _, err := desk.Terminal(t.Context(), end); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("a store that is away: %v", err)
	}
}

func TestOnlySoMuchIsHeldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := claimchecktest.New()
		desk := claimcheck.New(store, claimcheck.Params{Limit: 100, Room: 150, Wait: 10 * time.Second})
		payload := task.Payload{Ref: held(store, `{"text":"`+strings.Repeat("x", 80)+`"}`)}
		_, release, err := desk.Collect(t.Context(), payload)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, _, err := desk.Collect(t.Context(), payload); claimcheck.Fault(err) == nil || claimcheck.Fault(err).Class != fault.ClassSystem {
			t.Errorf("a second one: %v, want trouble of the system", err)
		}
		if waited := time.Since(began); waited != 10*time.Second {
			t.Errorf("gave up after %s", waited)
		}
		time.AfterFunc(3*time.Second, release)
		began = time.Now()
		_, release, err = desk.Collect(t.Context(), payload)
		if waited := time.Since(began); err != nil || waited != 3*time.Second {
			t.Errorf("once there is room: %v after %s", err, waited)
		}
		release()
		for range 5 { // failures take no room
			_, _, _ = desk.Collect(t.Context(), task.Payload{Ref: &task.Ref{Key: "no such", Bytes: 100}})
		}
		if _, release, err = desk.Collect(t.Context(), payload); err != nil {
			t.Error(err)
		}
		release()
	})
}

func TestAServerTakesBodiesForItsLargestPayload(t *testing.T) {
	store := blob.Config{URL: "file:///blobs", MaxBytes: 64 << 20}
	for _, c := range []struct {
		store         blob.Config
		without, want config.Bytes
	}{
		{blob.Config{MaxBytes: 64 << 20}, 8 << 20, 8 << 20},
		{store, 8 << 20, 65 << 20},
		{store, 100 << 20, 100 << 20},
	} {
		if got := claimcheck.BodyLimit(c.store, c.without); got != c.want {
			t.Errorf("with %q and %s: %s, want %s", c.store.URL, c.without, got, c.want)
		}
	}
}

func TestAContentIsPutAsRecordsHaveIt(t *testing.T) {
	store := claimchecktest.New()
	p, err := claimcheck.New(store, claimcheck.Params{}).Deposit(t.Context(), task.Payload{Text: strings.Repeat("<&>", claimcheck.Inline)})
	if got := store.Content(p.Ref); err != nil || !strings.HasPrefix(got, `{"text":"<&><&>`) {
		t.Errorf("%.40s, %v", got, err)
	}
}

func TestAStoreThatIsAwayIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := claimchecktest.New()
		desk := claimcheck.New(store, claimcheck.Params{})
		payload := task.Payload{Ref: held(store, `{"text":"x"}`)}
		collect := func() error {
			_, release, err := desk.Collect(t.Context(), payload)
			if err == nil {
				release()
			}
			return err
		}
		for range 10 { // what is lost, and who gives up, say nothing of the store
			_, _, _ = desk.Collect(t.Context(), task.Payload{Ref: &task.Ref{SHA256: "no such"}})
		}
		store.Fail(blob.ErrUnavailable)
		asked := store.Calls()
		for range 10 {
			if err := collect(); !errors.Is(err, blob.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if n := store.Calls() - asked; n != 3 {
			t.Errorf("asked %d times in a moment, want 3", n)
		}
		store.Fail(nil)
		if err := collect(); !errors.Is(err, blob.ErrUnavailable) {
			t.Errorf("at once: %v", err)
		}
		time.Sleep(6 * time.Second)
		if err := collect(); err != nil {
			t.Errorf("after a while: %v", err)
		}
	})
}
