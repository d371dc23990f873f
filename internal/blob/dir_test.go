package blob_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/blob/blobtest"
)

func openDir(t *testing.T, root string) *blob.Store {
	t.Helper()
	c := blob.DefaultConfig()
	c.URL = (&url.URL{Scheme: "file", Path: root}).String()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := blob.New(c, blob.Params{Service: "test", Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDirectory(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blobtest.World {
		root := filepath.Join(t.TempDir(), "not", "made yet")
		return blobtest.World{Store: openDir(t, root), Plant: func(key string, content []byte) {
			file := filepath.Join(root, key)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, ".penstock-blobs"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}}
	})
}

func TestAVolumeThatIsNotMountedIsNoLostBlob(t *testing.T) {
	root := filepath.Join(t.TempDir(), "volume")
	s := openDir(t, root)
	ref, err := s.Put(t.Context(), strings.NewReader("payload"), 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func() error{
		"nothing at the path": func() error { return nil },
		"a bare mount point":  func() error { return os.Mkdir(root, 0o700) },
	} {
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(t.Context(), ref); !errors.Is(err, blob.ErrUnavailable) || errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%s: %v, want ErrUnavailable alone", name, err)
		}
		if _, err := s.Renew(t.Context(), ref); err != nil { // filed today: nothing to do
			t.Errorf("%s: renew: %v", name, err)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(root+".away", root); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Bytes(t.Context(), ref, 10); err != nil || string(got) != "payload" {
		t.Errorf("mounted again: %q, %v", got, err)
	}
}

func TestADirectoryThatCannotBeWrittenIsUnavailable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := openDir(t, filepath.Join(file, "blobs"))
	if _, err := s.Put(t.Context(), strings.NewReader("payload"), 10); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("put: %v, want ErrUnavailable", err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("check: %v, want ErrUnavailable", err)
	}
}

func TestAFailedPutLeavesNoFile(t *testing.T) {
	root := t.TempDir()
	s := openDir(t, root)
	if _, err := s.Put(t.Context(), strings.NewReader("too much"), 3); !errors.Is(err, blob.ErrTooLarge) {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestTheSweeperWorksByAgeAlone(t *testing.T) {
	root := t.TempDir()
	s := openDir(t, root)
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		const life = 33 * 24 * time.Hour
		for range 2 { // two services sweep one store
			wg.Go(func() { blob.Sweeper{Store: s, OlderThan: life, Log: slog.New(slog.DiscardHandler)}.Run(ctx) })
		}
		put := func(text string) (string, func(string)) {
			ref, err := s.Put(ctx, strings.NewReader(text), 100)
			if err != nil {
				t.Fatal(err)
			}
			return ref.Key, func(when string) {
				_, err := s.Bytes(ctx, ref, 100)
				if lives := when == "lives"; lives != (err == nil) || !lives && !errors.Is(err, blob.ErrNotFound) {
					t.Errorf("%s is expected: %s %s: %v", when, text, ref.Key, err)
				}
			}
		}
		time.Sleep(15 * time.Hour) // into the day
		_, once := put("once")
		firstKey, first := put("repeated")
		time.Sleep(20 * 24 * time.Hour)
		secondKey, second := put("repeated")
		if firstKey == secondKey {
			t.Error("a second Put weeks later did not begin a new life")
		}
		time.Sleep(13*24*time.Hour - time.Minute) // a minute before the life of the first ends
		once("lives")
		first("lives")
		time.Sleep(24*time.Hour + 2*time.Hour) // the day of the Put, and the sweeper's pace
		once("swept")
		first("swept")
		second("lives")
		time.Sleep(20 * 24 * time.Hour)
		second("swept")
	})
	days, err := os.ReadDir(root)
	if err != nil || len(days) != 2 { // the marker and the scratch folder
		t.Errorf("left in the store: %v, %v", days, err)
	}
}

func TestWhatAKilledProcessLeftIsSwept(t *testing.T) {
	root := t.TempDir()
	s := openDir(t, root)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	old, young := filepath.Join(root, "tmp", "put-1"), filepath.Join(root, "tmp", "put-2")
	for _, file := range []string{old, young} {
		if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old one: %v, want it gone", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("the young one may be in use: %v", err)
	}
}

func TestBlobsOfOneContentAndManySizesStayApart(t *testing.T) {
	s := openDir(t, t.TempDir())
	for n := range 64 {
		b := bytes.Repeat([]byte{7}, n)
		ref, err := s.Put(t.Context(), bytes.NewReader(b), 100)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Bytes(t.Context(), ref, 100); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes came back as %d, %v", n, len(got), err)
		}
	}
}
