// Package blobtest is the conformance suite of blob stores: every technology
// must pass all of it.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/schema/task"
)

// World is one empty store and a way past it.
type World struct {
	Store *blob.Store
	// Plant puts bytes under a key as they are, as damage or an old Put would.
	Plant func(key string, content []byte)
}

// Run runs the suite; open returns a store that nobody else uses.
func Run(t *testing.T, open func(t *testing.T) World) {
	for name, test := range map[string]func(*testing.T, World){
		"a content comes back as it was put":                              comesBack,
		"a reader is read from where it stands":                           fromWhereItStands,
		"a content at the limit is kept and one byte more is not":         limits,
		"an error of the reader is returned as it is and nothing is kept": readersError,
		"the same content has one reference in a day":                     sameReference,
		"putting a content again heals its damage":                        heals,
		"a blob that is not there is told from trouble":                   notThere,
		"a reference that no store made reaches no content":               foreign,
		"damage is told before the end of the content":                    damage,
		"a blob over the reader's limit is not read into memory":          bytesLimit,
		"old blobs are swept by their age alone":                          sweep,
		"a renewed reference outlives the sweep of the old one":           renew,
		"renewing a blob that is not there says so":                       renewNothing,
		"a kept blob lives until its day is over, however old others are": keep,
		"a kept blob is its owner's alone and may be removed":             remove,
		"a name that could lead elsewhere keeps nothing":                  keepNames,
		"many may put the same content at once":                           concurrent,
		"a large content is not held in memory":                           bounded,
		"a context that ends is told as such":                             cancelled,
		"an empty store answers":                                          check,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func content(n int) []byte {
	out := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	_, _ = random.Read(out) // never fails
	return out
}

func (w World) put(t *testing.T, b []byte) task.Ref {
	t.Helper()
	ref, err := w.Store.Put(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (w World) expect(t *testing.T, ref task.Ref, want []byte) {
	t.Helper()
	got, err := w.Store.Bytes(t.Context(), ref, ref.Bytes)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want the %d that were put", len(got), err, len(want))
	}
}

func refOf(day time.Time, b []byte) task.Ref {
	sum := sha256.Sum256(b)
	hash := hex.EncodeToString(sum[:])
	return task.Ref{Key: day.UTC().Format("2006-01-02") + "/" + hash[:2] + "/" + hash, SHA256: hash, Bytes: int64(len(b))}
}

// stream hides that a reader could seek.
type stream struct{ io.Reader }

func comesBack(t *testing.T, w World) {
	for _, n := range []int{0, 1, 64 << 10, 5<<20 + 3, 17 << 20} { // the last in several parts
		b := content(n)
		ref := w.put(t, b)
		if want := refOf(time.Now(), b); ref != want {
			t.Errorf("reference %+v, want %+v", ref, want)
		}
		w.expect(t, ref, b)
		streamed, err := w.Store.Put(t.Context(), stream{bytes.NewReader(b)}, int64(n))
		if err != nil || streamed != ref {
			t.Errorf("as a stream: %+v, %v, want %+v", streamed, err, ref)
		}
		w.expect(t, ref, b)
	}
}

func fromWhereItStands(t *testing.T, w World) {
	b := content(1000)
	r := bytes.NewReader(b)
	if _, err := r.Seek(300, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	ref, err := w.Store.Put(t.Context(), r, 1000)
	if err != nil {
		t.Fatal(err)
	}
	w.expect(t, ref, b[300:])
}

func limits(t *testing.T, w World) {
	const limit = 4096
	for _, n := range []int{limit - 1, limit} {
		b := content(n)
		for _, r := range []io.Reader{bytes.NewReader(b), stream{bytes.NewReader(b)}} {
			ref, err := w.Store.Put(t.Context(), r, limit)
			if err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			w.expect(t, ref, b)
		}
	}
	over := content(limit + 1)
	for _, r := range []io.Reader{bytes.NewReader(over), stream{bytes.NewReader(over)}} {
		if ref, err := w.Store.Put(t.Context(), r, limit); !errors.Is(err, blob.ErrTooLarge) || errors.Is(err, blob.ErrUnavailable) || ref != (task.Ref{}) {
			t.Errorf("one byte more: %+v, %v, want ErrTooLarge", ref, err)
		}
	}
	w.gone(t, refOf(time.Now(), over))
}

func (w World) gone(t *testing.T, ref task.Ref) {
	t.Helper()
	if _, err := w.Store.Bytes(t.Context(), ref, ref.Bytes); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("%s: %v, want ErrNotFound", ref.Key, err)
	}
}

func readersError(t *testing.T, w World) {
	w.put(t, content(1)) // so that there is a store
	broke := errors.New("the upload broke off")
	half := content(5000)
	r := io.MultiReader(bytes.NewReader(half), iotest.ErrReader(broke))
	if _, err := w.Store.Put(t.Context(), r, 1<<20); !errors.Is(err, broke) || errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("got %v, want the reader's error alone", err)
	}
	w.gone(t, refOf(time.Now(), half))
}

func sameReference(t *testing.T, w World) {
	if a, b := w.put(t, content(100)), w.put(t, content(100)); a != b {
		t.Errorf("%+v and %+v", a, b)
	}
	if a, b := w.put(t, content(100)), w.put(t, content(101)); a == b {
		t.Errorf("two contents have one reference")
	}
}

func heals(t *testing.T, w World) {
	b := content(2000)
	ref := w.put(t, b)
	w.Plant(ref.Key, content(1999))
	w.put(t, b)
	w.expect(t, ref, b)
}

func notThere(t *testing.T, w World) {
	w.put(t, content(1))
	w.gone(t, refOf(time.Now(), content(2)))
	w.gone(t, refOf(time.Now().Add(-240*time.Hour), content(1)))
}

func foreign(t *testing.T, w World) {
	ref := w.put(t, content(50))
	for name, change := range map[string]func(*task.Ref){
		"an empty key":            func(r *task.Ref) { r.Key = "" },
		"a way out":               func(r *task.Ref) { r.Key = "../" + r.Key },
		"a way out, in the day":   func(r *task.Ref) { r.Key = ".." + r.Key[10:] },
		"an absolute path":        func(r *task.Ref) { r.Key = "/etc/passwd" },
		"another content's hash":  func(r *task.Ref) { r.SHA256 = refOf(time.Now(), content(51)).SHA256 },
		"a hash in capitals":      func(r *task.Ref) { r.SHA256 = strings.ToUpper(r.SHA256) },
		"a short hash":            func(r *task.Ref) { r.SHA256 = r.SHA256[:10] },
		"no hash":                 func(r *task.Ref) { r.SHA256 = "" },
		"a negative size":         func(r *task.Ref) { r.Bytes = -1 },
		"a shard that is no hash": func(r *task.Ref) { r.Key = r.Key[:11] + "zz" + r.Key[13:] },
	} {
		bad := ref
		change(&bad)
		if _, err := w.Store.Open(t.Context(), bad); !errors.Is(err, blob.ErrRef) {
			t.Errorf("%s: opened, or %v, want ErrRef", name, err)
		}
		if _, err := w.Store.Renew(t.Context(), bad); !errors.Is(err, blob.ErrRef) {
			t.Errorf("%s: renewed, or %v, want ErrRef", name, err)
		}
	}
}

func damage(t *testing.T, w World) {
	b := content(70_000)
	flipped := bytes.Clone(b)
	flipped[69_999] ^= 1
	ref := w.put(t, b)
	for name, planted := range map[string][]byte{
		"a flipped bit": flipped, "a lost tail": b[:69_999], "nothing left": nil, "a byte more": append(bytes.Clone(b), 0),
	} {
		w.Plant(ref.Key, planted)
		r, err := w.Store.Open(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("%s: read %d bytes, %v, want ErrCorrupt", name, n, err)
		}
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("%s: after the end: %v, want ErrCorrupt still", name, err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
	}
}

func bytesLimit(t *testing.T, w World) {
	ref := w.put(t, content(100))
	if _, err := w.Store.Bytes(t.Context(), ref, 99); !errors.Is(err, blob.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

const day = 24 * time.Hour

func sweep(t *testing.T, w World) {
	now := time.Now()
	var old []task.Ref
	for age := range 6 {
		b := content(1000 + age)
		ref := refOf(now.Add(-time.Duration(age)*day), b)
		w.Plant(ref.Key, b)
		old = append(old, ref)
	}
	fresh := w.put(t, content(10))
	swept, err := w.Store.Sweep(t.Context(), 3*day)
	if want := (blob.Swept{Blobs: 2, Bytes: 1004 + 1005}); err != nil || swept != want {
		t.Fatalf("swept %+v, %v, want %+v", swept, err, want)
	}
	for age, ref := range old {
		if age >= 4 { // over for three whole days
			w.gone(t, ref)
		} else {
			w.expect(t, ref, content(1000+age))
		}
	}
	w.expect(t, fresh, content(10))
	if swept, err := w.Store.Sweep(t.Context(), 3*day); err != nil || swept.Blobs != 0 {
		t.Errorf("a second sweep found %+v, %v", swept, err)
	}
}

func renew(t *testing.T, w World) {
	b := content(3000)
	old := refOf(time.Now().Add(-10*day), b)
	w.Plant(old.Key, b)
	young, err := w.Store.Renew(t.Context(), old)
	if err != nil || young != refOf(time.Now(), b) {
		t.Fatalf("renewed %+v, %v", young, err)
	}
	w.expect(t, old, b)
	if again, err := w.Store.Renew(t.Context(), young); err != nil || again != young {
		t.Errorf("a young one became %+v, %v", again, err)
	}
	if _, err := w.Store.Sweep(t.Context(), 2*day); err != nil {
		t.Fatal(err)
	}
	w.gone(t, old)
	w.expect(t, young, b)
}

func renewNothing(t *testing.T, w World) {
	w.put(t, content(1))
	if _, err := w.Store.Renew(t.Context(), refOf(time.Now().Add(-day), content(2))); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func (w World) keep(t *testing.T, name string, until time.Time, b []byte) task.Ref {
	t.Helper()
	ref, err := w.Store.Keep(t.Context(), name, until, stream{bytes.NewReader(b)}, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func keep(t *testing.T, w World) {
	now, b := time.Now(), content(4000)
	past := w.keep(t, "file-past", now.Add(-2*day), b)
	today := w.keep(t, "file-today", now, b)
	later := w.keep(t, "file-later", now.Add(30*day), b)
	w.expect(t, past, b)
	if swept, err := w.Store.Sweep(t.Context(), 40*day); err != nil || swept != (blob.Swept{Blobs: 1, Bytes: 4000}) {
		t.Errorf("swept %+v, %v, want the one whose time is over", swept, err)
	}
	w.gone(t, past)
	w.expect(t, today, b)
	w.expect(t, later, b)
	if _, err := w.Store.Keep(t.Context(), "file-large", now, bytes.NewReader(b), 3999); !errors.Is(err, blob.ErrTooLarge) {
		t.Errorf("over the limit: %v, want ErrTooLarge", err)
	}
	renewed, err := w.Store.Renew(t.Context(), later)
	if err != nil || renewed != refOf(now, b) {
		t.Errorf("renewed as %+v, %v", renewed, err)
	}
}

func remove(t *testing.T, w World) {
	until, b := time.Now().Add(day), content(700)
	mine, yours, put := w.keep(t, "file-mine", until, b), w.keep(t, "file-yours", until, b), w.put(t, b)
	for range 2 { // the second time it is gone already
		if err := w.Store.Remove(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
	}
	w.gone(t, mine)
	w.expect(t, yours, b)
	if err := w.Store.Remove(t.Context(), put); !errors.Is(err, blob.ErrRef) {
		t.Errorf("remove of what others may hold: %v, want ErrRef", err)
	}
	w.expect(t, put, b)
}

func keepNames(t *testing.T, w World) {
	b := content(9)
	ref := w.keep(t, "file-1", time.Now(), b)
	for _, name := range []string{"", "..", ".", "a/b", "A", "ä", strings.Repeat("x", 65)} {
		if _, err := w.Store.Keep(t.Context(), name, time.Now(), bytes.NewReader(b), 9); !errors.Is(err, blob.ErrRef) {
			t.Errorf("name %q: %v, want ErrRef", name, err)
		}
		bad := ref
		bad.Key = strings.Replace(ref.Key, "file-1", name, 1)
		if err := w.Store.Remove(t.Context(), bad); !errors.Is(err, blob.ErrRef) {
			t.Errorf("reference to %q: %v, want ErrRef", name, err)
		}
	}
	w.expect(t, ref, b)
}

func concurrent(t *testing.T, w World) {
	b := content(300_000)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var r io.Reader = bytes.NewReader(b)
			if i%2 == 0 {
				r = stream{r}
			}
			ref, err := w.Store.Put(t.Context(), r, 1<<20)
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := w.Store.Bytes(t.Context(), ref, 1<<20); err != nil || !bytes.Equal(got, b) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

// zeros is an endless content.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func bounded(t *testing.T, w World) {
	const size = 128 << 20
	used := func(do func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	var ref task.Ref
	put := used(func() {
		var err error
		if ref, err = w.Store.Put(t.Context(), io.LimitReader(zeros{}, size), size); err != nil {
			t.Fatal(err)
		}
	})
	read := used(func() {
		r, err := w.Store.Open(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if n, err := io.Copy(io.Discard, r); err != nil || n != size {
			t.Fatalf("read %d bytes, %v", n, err)
		}
	})
	if put > size/2 || read > size/2 {
		t.Errorf("allocated %d bytes to put %d, and %d to read them", put, size, read)
	}
}

func cancelled(t *testing.T, w World) {
	stop := errors.New("nobody waits any more")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := w.Store.Put(ctx, bytes.NewReader(content(10)), 10); !errors.Is(err, stop) {
		t.Errorf("put: %v, want the context's cause", err)
	}
}

func check(t *testing.T, w World) {
	if err := w.Store.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if swept, err := w.Store.Sweep(t.Context(), 0); err != nil || swept.Blobs != 0 {
		t.Errorf("swept %+v, %v", swept, err)
	}
}
