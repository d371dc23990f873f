package httpserver

import (
	"maps"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// answer is a connection that notes when it is cut.
type answer struct {
	http.ResponseWriter
	began time.Time
	cut   map[*answer]time.Duration
}

func (a *answer) SetWriteDeadline(at time.Time) error {
	if at.Before(time.Now()) {
		a.cut[a] = time.Since(a.began)
	}
	return nil
}

// Whatever writes begin and end, those are cut that last for longer than they may,
// each on time.
func TestPatience(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type write struct{ begins, may, lasts time.Duration }
		seconds := func(most int, name string) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(rt, name)) * time.Second
		}
		var writes []write
		for range rapid.IntRange(1, 12).Draw(rt, "writes") {
			// Halves keep an end from coming in the very moment of a cut.
			writes = append(writes, write{seconds(20, "begins"), time.Second + seconds(5, "may"), time.Second/2 + seconds(8, "lasts")})
		}
		synctest.Test(t, func(t *testing.T) {
			var p patience
			got, want := map[*answer]time.Duration{}, map[*answer]time.Duration{}
			for _, w := range writes {
				a := &answer{cut: got}
				late := w.lasts > w.may
				if late {
					want[a] = w.may
				}
				go func() {
					time.Sleep(w.begins)
					a.began = time.Now()
					p.begin(a, a.began.Add(w.may))
					time.Sleep(w.lasts)
					if cut := p.end(a); cut != late {
						t.Errorf("a write of %s that may take %s: cut %t", w.lasts, w.may, cut)
					}
				}()
			}
			time.Sleep(time.Minute)
			p.mu.Lock()
			defer p.mu.Unlock()
			if !maps.Equal(want, got) {
				t.Errorf("cut (+) and to be cut (-): %s", cmp.Diff(want, got))
			}
			if len(p.writes) > 0 || !p.next.IsZero() {
				t.Errorf("%d writes are watched, the next until %s", len(p.writes), p.next)
			}
		})
	})
}
