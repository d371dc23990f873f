package ingest_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// claimLimit is the largest payload, as JSON, that the store of these tests
// takes.
const claimLimit = 1 << 20

// withStore gives the intake a store in a directory, which it returns.
func withStore(t *testing.T) (root string, _ option) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "blobs")
	store, err := blob.New(blob.Config{URL: "file://" + root}, blob.Params{Service: "test", Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return root, func(d *ingest.Deps, _ *ingest.Params) {
		d.Claims = claimcheck.New(store, claimcheck.Params{Limit: claimLimit, Wait: time.Second})
	}
}

func content(n int) string { return strings.Repeat("x", n) }

func TestOnlyLargePayloadsLeaveTheRecord(t *testing.T) {
	root, store := withStore(t)
	for _, n := range []int{claimcheck.Inline - 1, claimcheck.Inline, claimcheck.Inline + 1} {
		for name, opt := range map[string]option{"with a store": store, "without": func(*ingest.Deps, *ingest.Params) {}} {
			b := setup(t, opt)
			if _, err := b.intake.Accept(t.Context(), submission(text("chat", content(n)), "")); err != nil {
				t.Fatal(err)
			}
			got := b.topics.tasks[0].Payload
			if leaves := n > claimcheck.Inline && name == "with a store"; !leaves {
				if diff := cmp.Diff(task.Payload{Text: content(n)}, got); diff != "" {
					t.Errorf("%d bytes %s: %s", n, name, diff)
				}
				continue
			}
			if got.Ref == nil || got.Size() != 0 {
				t.Fatalf("%d bytes %s: the record has %d of them and the reference %v", n, name, got.Size(), got.Ref)
			}
			stored, err := os.ReadFile(filepath.Join(root, got.Ref.Key))
			if err != nil || string(stored) != `{"text":"`+content(n)+`"}` || got.Ref.Bytes != int64(len(stored)) {
				t.Errorf("%d bytes lie in the store, %v; the reference is %+v", len(stored), err, got.Ref)
			}
		}
	}
}

func TestARoutedTaskKeepsWhatItWasRoutedBy(t *testing.T) {
	root, store := withStore(t)
	b := setup(t, store)
	r := text("", "a vector "+content(claimcheck.Inline))
	r.Payload.Context = json.RawMessage(`{"lang":"de"}`)
	if _, err := b.intake.Accept(t.Context(), submission(r, "")); err != nil {
		t.Fatal(err)
	}
	got := b.topics.tasks[0]
	stored, err := os.ReadFile(filepath.Join(root, got.Payload.Ref.Key))
	if err != nil || got.Model != "embed" || got.Kind != task.Embedding || !strings.HasSuffix(string(stored), `,"context":{"lang":"de"}}`) {
		t.Errorf("model %s, kind %s, %v", got.Model, got.Kind, err)
	}
}

func TestPayloadsBeyondTheStoresLimitAreRefused(t *testing.T) {
	_, store := withStore(t)
	const frame = len(`{"text":""}`)
	for n, want := range map[int]fault.Code{claimLimit - frame - 1: "", claimLimit - frame: "", claimLimit - frame + 1: fault.TooLarge} {
		b := setup(t, store)
		_, err := b.intake.Accept(t.Context(), submission(text("chat", content(n)), ""))
		if want == "" {
			if err != nil || len(b.topics.tasks) != 1 {
				t.Errorf("%d bytes: %v", n, err)
			}
			continue
		}
		v, ok := errors.AsType[*validate.Error](err)
		if !ok || v.Code != want || v.Path != "payload" || !strings.Contains(v.Reason, "1048576") || !strings.Contains(v.Reason, "blob_max_bytes") {
			t.Errorf("%d bytes: %v, want %s with the limit and the cure", n, err, want)
		}
		if len(b.topics.tasks) != 0 {
			t.Errorf("%d bytes: refused, and written to Kafka", n)
		}
	}
}

func TestAStoreThatIsAwayKeepsOutLargePayloadsOnly(t *testing.T) {
	root, store := withStore(t)
	if err := os.WriteFile(root, nil, 0o600); err != nil { // no directory can be made here
		t.Fatal(err)
	}
	b := setup(t, store)
	_, err := b.intake.Accept(t.Context(), submission(text("chat", content(claimcheck.Inline+1)), "key"))
	if fault.CodeOf(err) != fault.Unavailable || fault.RetryAfterOf(err) == 0 || !strings.Contains(err.Error(), "nothing was accepted") {
		t.Errorf("a large one: %v, want unavailable with a wait", err)
	}
	if len(b.topics.tasks) != 0 {
		t.Error("refused, and written to Kafka")
	}
	if _, err := b.intake.Accept(t.Context(), submission(text("chat", "small"), "")); err != nil {
		t.Errorf("a small one: %v", err)
	}
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	again, err := b.intake.Accept(t.Context(), submission(text("chat", content(claimcheck.Inline+1)), "key"))
	if err != nil || again.Repeat || b.topics.tasks[1].Payload.Ref == nil {
		t.Errorf("sent again: %+v, %v", again, err)
	}
}

func TestAListStoresEachLargePayload(t *testing.T) {
	_, store := withStore(t)
	b := setup(t, store)
	sizes := []int{10, claimcheck.Inline + 1, claimLimit + 1, 20, claimcheck.Inline + 2}
	results := b.intake.AcceptAll(t.Context(), len(sizes), func(i int) (ingest.Submission, error) {
		return submission(text("chat", content(sizes[i])), ""), nil
	})
	for i, r := range results {
		if refused := r.Err != nil; refused != (i == 2) {
			t.Errorf("item %d: %v", i, r.Err)
		}
	}
	if ingest.CodeOf(results[2].Err) != fault.TooLarge {
		t.Errorf("item 2: %v, want too_large", results[2].Err)
	}
	var refs []bool
	for _, w := range b.topics.tasks {
		refs = append(refs, w.Payload.Ref != nil)
	}
	if diff := cmp.Diff([]bool{false, true, false, true}, refs); diff != "" {
		t.Error(diff)
	}
}
