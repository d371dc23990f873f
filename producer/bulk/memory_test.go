package bulk_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/producer/bulk"
)

// A file of 100 MB, with an output as large: what is held of it at any time must
// not depend on its size. (A batch of as many lines as there may be is run end to
// end, see cmd/e2e.)
func TestWhatABatchHoldsDoesNotGrowWithItsFile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	inBubble(t, func(t *testing.T, w *world) {
		w.window, w.segment, w.maxFile = 256, 1000, 200<<20
		w.takes = func(string) time.Duration { return time.Second }
		var most uint64
		look := func() {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
		w.watched = func(accepted int) {
			if accepted%500 == 0 {
				look()
			}
		}
		p := w.start(nil)
		defer p.drain()
		look()
		before := most
		u, err := p.desk.Receive(t.Context(), &manyLines{n: manyRequests})
		if err != nil {
			t.Fatal(err)
		}
		f, err := p.desk.File(t.Context(), tenant, u, bulk.About{Name: "in.jsonl", Purpose: bulk.PurposeBatch})
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.desk.Create(t.Context(), tenant, bulk.Order{Input: f.ID, Endpoint: endpoint, Window: "24h"})
		if err != nil {
			t.Fatal(err)
		}
		ended := p.finish(b.ID, time.Hour)
		if ended.Counts.Completed != manyRequests {
			t.Fatalf("%s, %+v", ended.Status, ended.Counts)
		}
		// The world itself remembers a little of each task.
		held := int64(most) - int64(before) - int64(len(w.tasks))*512
		t.Logf("file %d MiB, output %d MiB; heap %d MiB before, %d MiB at most", f.Content.Bytes>>20, size(t, p, ended.Output)>>20, before>>20, most>>20)
		if held > 48<<20 {
			t.Errorf("a batch holds %d MiB", held>>20)
		}
	})
}

func size(t *testing.T, p *process, id string) int64 {
	t.Helper()
	f, err := p.desk.FindFile(t.Context(), tenant, id)
	if err != nil {
		t.Fatal(err)
	}
	return f.Content.Bytes
}

// manyRequests of 10 KB each are the file.
const manyRequests = 10_000

// manyLines is a file that is made while it is read.
type manyLines struct {
	n, next int
	rest    strings.Reader
}

func (m *manyLines) Read(p []byte) (int, error) {
	if m.rest.Len() == 0 {
		if m.next == m.n {
			return 0, io.EOF
		}
		m.rest.Reset(fmt.Sprintf(`{"custom_id":"c-%d","method":"POST","url":"/v1/completions","body":{"model":"sim","prompt":"%d %s"}}`+"\n",
			m.next, m.next, strings.Repeat("x", 10_000)))
		m.next++
	}
	return m.rest.Read(p)
}
