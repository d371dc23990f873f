package consume_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/penstock/penstock/worker/consume"
)

// model is the naive tracker: a set of settled offsets and no limit tricks.
type model struct {
	start   int64 // below it everything is settled
	next    int64
	settled map[int64]bool
	pending map[int64]bool // delivered, not settled
}

func (m *model) watermark() int64 {
	for m.start < m.next && m.settled[m.start] {
		m.start++ // everything below is settled for good
	}
	return m.start
}

// trackerMachine drives a Tracker and the model side by side. Restart commits,
// throws the tracker away and replays the log from the committed offset.
type trackerMachine struct {
	t *consume.Tracker
	m model

	log map[int64]bool // offsets that hold a record; others are gaps
}

func (s *trackerMachine) deliver(rt *rapid.T, offset int64) {
	want := consume.Fresh
	switch {
	case s.m.settled[offset]:
		want = consume.Done
	case offset >= s.m.watermark()+consume.Span && s.m.watermark() < s.m.next:
		want = consume.Full
	}
	got := s.t.Deliver(offset)
	if got != want {
		rt.Fatalf("Deliver(%d) = %v, want %v (watermark %d, next %d)", offset, got, want, s.m.watermark(), s.m.next)
	}
	if got == consume.Full {
		return
	}
	for o := s.m.next; o < offset; o++ {
		s.m.settled[o] = true
	}
	s.m.next = offset + 1
	if got == consume.Fresh {
		s.m.pending[offset] = true
	}
}

// Deliver passes over a gap of some width, usually none.
func (s *trackerMachine) Deliver(rt *rapid.T) {
	gap := rapid.SampledFrom([]int64{0, 0, 0, 0, 1, 3, 70, 5000}).Draw(rt, "gap")
	s.deliver(rt, s.m.next+gap)
	s.log[s.m.next-1] = true
}

// DeliverMany fills the span quickly.
func (s *trackerMachine) DeliverMany(rt *rapid.T) {
	for range rapid.IntRange(1, 2000).Draw(rt, "n") {
		s.deliver(rt, s.m.next)
		s.log[s.m.next-1] = true
	}
}

// SettleSome settles pending offsets in no order, by a drawn stride.
func (s *trackerMachine) SettleSome(rt *rapid.T) {
	stride := rapid.SampledFrom([]int64{1, 2, 3, 7, 64}).Draw(rt, "stride")
	for o := range s.m.pending {
		if o%stride == 0 {
			s.settle(rt, o)
		}
	}
}

// SettleOne settles any offset at all: twice, early and unknown ones must
// change nothing.
func (s *trackerMachine) SettleOne(rt *rapid.T) {
	s.settle(rt, rapid.Int64Range(s.m.start-10, s.m.next+10).Draw(rt, "offset"))
}

func (s *trackerMachine) settle(rt *rapid.T, offset int64) {
	if got, want := s.t.Settle(offset), s.m.pending[offset]; got != want {
		rt.Fatalf("Settle(%d) = %t, want %t", offset, got, want)
	}
	if s.m.pending[offset] {
		delete(s.m.pending, offset)
		s.m.settled[offset] = true
	}
}

// Restart commits and starts anew: exactly the unfinished offsets are fresh.
func (s *trackerMachine) Restart(rt *rapid.T) {
	watermark, metadata := s.t.Commit()
	fresh, err := consume.RestoreTracker(watermark, metadata)
	if err != nil {
		rt.Fatal(err)
	}
	s.t = fresh
	end := s.m.next
	for o := watermark; o < end; o++ {
		if !s.log[o] {
			continue
		}
		want := consume.Done
		if s.m.pending[o] {
			want = consume.Fresh
		}
		if got := s.t.Deliver(o); got != want {
			rt.Fatalf("after the restart at %d, Deliver(%d) = %v, want %v", watermark, o, got, want)
		}
	}
	s.m.next = max(s.t.Next(), watermark)
	s.m.start = watermark
}

func (s *trackerMachine) Check(rt *rapid.T) {
	watermark, metadata := s.t.Commit()
	if watermark != s.m.watermark() {
		rt.Fatalf("watermark %d, want %d", watermark, s.m.watermark())
	}
	if len(metadata) > consume.MetadataLimit {
		rt.Fatalf("metadata has %d bytes", len(metadata))
	}
	if s.t.Width() > consume.Span {
		rt.Fatalf("span is %d", s.t.Width())
	}
	for o := range s.m.pending {
		if o < watermark {
			rt.Fatalf("watermark %d is above the unsettled offset %d", watermark, o)
		}
	}
}

func TestTrackerAgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		start := rapid.Int64Range(0, 1<<40).Draw(rt, "start")
		s := &trackerMachine{
			t:   consume.NewTracker(start),
			m:   model{start: start, next: start, settled: map[int64]bool{}, pending: map[int64]bool{}},
			log: map[int64]bool{},
		}
		rt.Repeat(rapid.StateMachineActions(s))
	})
}

func TestTrackerPausesInsteadOfOverflowing(t *testing.T) {
	const records = 40_000
	tr := consume.NewTracker(0)
	pending := []int64{}
	for next := int64(0); next < records; {
		switch tr.Deliver(next) {
		case consume.Fresh:
			if next%2 == 0 {
				pending = append(pending, next)
			} else if !tr.Settle(next) {
				t.Fatalf("offset %d could not be settled", next)
			}
			next++
		case consume.Full:
			if _, meta := tr.Commit(); len(meta) > consume.MetadataLimit {
				t.Fatalf("metadata of a full span has %d bytes", len(meta))
			}
			for _, o := range pending {
				tr.Settle(o)
			}
			pending = pending[:0]
		default:
			t.Fatalf("unexpected verdict at %d", next)
		}
	}
	watermark, meta := tr.Commit()
	restored, err := consume.RestoreTracker(watermark, meta)
	if err != nil {
		t.Fatal(err)
	}
	replayed := 0
	for o := watermark; o < records; o++ {
		if restored.Deliver(o) == consume.Fresh {
			replayed++
		}
	}
	if replayed != len(pending) {
		t.Errorf("restart replays %d offsets, %d were unfinished", replayed, len(pending))
	}
}

func TestTrackerPassesAGapWiderThanItsSpan(t *testing.T) {
	tr := consume.NewTracker(10)
	if v := tr.Deliver(10 + 3*consume.Span); v != consume.Fresh {
		t.Fatalf("verdict %v, want fresh", v)
	}
	if w, _ := tr.Commit(); w != 10+3*consume.Span {
		t.Errorf("watermark %d", w)
	}
	if v := tr.Deliver(11); v != consume.Rewound {
		t.Errorf("an offset from before the gap gives %v, want rewound", v)
	}
}

func TestRestoreTrackerIgnoresWhatItCannotTrust(t *testing.T) {
	tr := consume.NewTracker(100)
	for o := int64(100); o < 300; o++ {
		tr.Deliver(o)
		if o%3 == 1 {
			tr.Settle(o)
		}
	}
	watermark, good := tr.Commit()
	damaged := []byte(good)
	damaged[len(damaged)/2] ^= 1
	for name, tc := range map[string]struct {
		at   int64
		meta string
	}{
		"another client's text":    {watermark, "consumer-1-3f9c"},
		"a flipped bit":            {watermark, string(damaged)},
		"a cut":                    {watermark, good[:len(good)-4]},
		"another offset's":         {watermark + 1, good},
		"text beyond the limit":    {watermark, good + string(make([]byte, consume.MetadataLimit))},
		"one character of base64":  {watermark, "A"},
		"the shortest wrong bytes": {watermark, "AAAAAAA"},
	} {
		t.Run(name, func(t *testing.T) {
			restored, err := consume.RestoreTracker(tc.at, tc.meta)
			if !errors.Is(err, consume.ErrMetadata) {
				t.Fatalf("err = %v, want ErrMetadata", err)
			}
			for o := tc.at; o < 300; o++ {
				if v := restored.Deliver(o); v != consume.Fresh {
					t.Fatalf("offset %d is %v, want everything replayed", o, v)
				}
			}
		})
	}
}

func FuzzRestoreTracker(f *testing.F) {
	tr := consume.NewTracker(0)
	for o := int64(0); o < 1000; o++ {
		tr.Deliver(o)
		if o%5 != 0 {
			tr.Settle(o)
		}
	}
	w, meta := tr.Commit()
	f.Add(w, meta)
	f.Add(int64(0), "")
	f.Fuzz(func(t *testing.T, at int64, meta string) {
		if at < 0 || at > 1<<60 {
			t.Skip()
		}
		restored, err := consume.RestoreTracker(at, meta)
		if err != nil && !errors.Is(err, consume.ErrMetadata) {
			t.Fatal(err)
		}
		if w, m := restored.Commit(); w != at && err != nil || len(m) > consume.MetadataLimit {
			t.Fatalf("restored tracker commits %d, %d bytes", w, len(m))
		}
	})
}
