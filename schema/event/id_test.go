package event_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/event"
	"pgregory.net/rapid"
)

// fields are the parts of a fence, most significant first.
type fields struct {
	generation uint8
	hop        uint16
	group      int32
	try        int
}

func (f fields) fence(t rapid.TB) event.Fence {
	t.Helper()
	got, err := event.NewFence(f.generation, f.hop, f.group, f.try)
	if err != nil {
		t.Fatalf("NewFence(%+v): %v", f, err)
	}
	return got
}

// compare is the order a fence promises, field by field.
func (f fields) compare(g fields) int {
	return slices.Compare(
		[]int64{int64(f.generation), int64(f.hop), int64(f.group), int64(f.try)},
		[]int64{int64(g.generation), int64(g.hop), int64(g.group), int64(g.try)})
}

// anyFields draws edges and near neighbours often: the order fails there first.
func anyFields() *rapid.Generator[fields] {
	return rapid.Custom(func(t *rapid.T) fields {
		return fields{
			generation: rapid.OneOf(rapid.Uint8(), rapid.SampledFrom([]uint8{0, 1, 127, 128, 254, 255})).Draw(t, "generation"),
			hop:        rapid.OneOf(rapid.Uint16Range(0, event.MaxHop), rapid.SampledFrom([]uint16{0, 1, event.MaxHop})).Draw(t, "hop"),
			group:      rapid.OneOf(rapid.Int32Min(0), rapid.SampledFrom([]int32{0, 1, math.MaxInt32})).Draw(t, "group"),
			try:        rapid.OneOf(rapid.IntRange(0, event.MaxTry), rapid.SampledFrom([]int{0, 1, event.MaxTry})).Draw(t, "try"),
		}
	})
}

// pairs is how many pairs one rapid case compares: 100 cases make 12,800.
const pairs = 128

func TestFencesOrderByGenerationThenHopThenGroupThenTry(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		all := rapid.SliceOfN(anyFields(), 2*pairs, 2*pairs).Draw(r, "fields")
		for i := 0; i < len(all); i += 2 {
			a, b := all[i], all[i+1]
			fa, fb := a.fence(r), b.fence(r)
			want := a.compare(b)
			if got := compare(fa, fb); got != want {
				r.Fatalf("%+v and %+v compare as %d, want %d", a, b, got, want)
			}
			if got := strings.Compare(fa.Padded(), fb.Padded()); got != want {
				r.Fatalf("%s and %s compare as text as %d, want %d", fa.Padded(), fb.Padded(), got, want)
			}
			if len(fa.Padded()) != event.FenceDigits || strings.TrimLeft(fa.Padded(), "0") != strings.TrimLeft(fa.String(), "0") {
				r.Fatalf("Padded %q of %q", fa.Padded(), fa)
			}
			if fa.Generation() != a.generation {
				r.Fatalf("Generation() = %d, want %d", fa.Generation(), a.generation)
			}
		}
	})
}

func compare(a, b event.Fence) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func TestATerminalIsAboveEveryAttemptOfItsGenerationAndBelowTheNext(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		for _, f := range rapid.SliceOfN(anyFields(), pairs, pairs).Draw(r, "fields") {
			attempt := f.fence(r)
			for g := range event.MaxGeneration + 1 {
				end := event.TerminalFence(uint8(g))
				if below := int(f.generation) <= g; (attempt < end) != below || attempt == end || len(end.Padded()) != event.FenceDigits {
					r.Fatalf("attempt %+v (%d) against the terminal of generation %d (%d)", f, attempt, g, end)
				}
			}
			if attempt.Terminal() {
				r.Fatalf("attempt %+v looks like a terminal", f)
			}
		}
	})
}

func TestAFenceRefusesFieldsThatDoNotFit(t *testing.T) {
	for name, f := range map[string]fields{
		"the terminal's hop":  {hop: event.MaxHop + 1},
		"a hop above 12 bits": {hop: math.MaxUint16},
		"a negative group":    {group: -1},
		"a negative try":      {try: -1},
		"a try above 8 bits":  {try: event.MaxTry + 1},
	} {
		if got, err := event.NewFence(f.generation, f.hop, f.group, f.try); !errors.Is(err, event.ErrFenceField) || got != 0 {
			t.Errorf("%s: NewFence = %d, %v, want ErrFenceField", name, got, err)
		}
	}
}

func TestAnEventIDHasOneText(t *testing.T) {
	top := event.TerminalID(event.MaxGeneration).String()
	for text, want := range map[string]event.ID{
		"0-0":                        {},
		"0-1":                        event.QueuedID(),
		"1-18446744073709551615":     {Fence: 1, Seq: math.MaxUint64},
		top:                          event.TerminalID(event.MaxGeneration),
		"1152921504606846975-7":      {Fence: 1<<60 - 1, Seq: 7},
		"":                           {},
		"-":                          {},
		"1":                          {},
		"1-":                         {},
		"-1":                         {},
		"1--1":                       {},
		"1-1-1":                      {},
		"01-1":                       {},
		"1-01":                       {},
		"00-1":                       {},
		"+1-1":                       {},
		"1-+1":                       {},
		" 1-1":                       {},
		"1-1 ":                       {},
		"1-1\n":                      {},
		"1_0-1":                      {},
		"0x1-1":                      {},
		"1.0-1":                      {},
		"1e3-1":                      {},
		"١-1":                        {},
		"*":                          {},
		"$":                          {},
		"1-*":                        {},
		"1152921504606846976-0":      {}, // above every generation
		"18446744073709551615-0":     {},
		"18446744073709551616-0":     {},
		"1-18446744073709551616":     {},
		"1-99999999999999999999":     {},
		"1-000000000000000000000001": {},
	} {
		got, err := event.ParseID(text)
		if valid := text == "0-0" || want != (event.ID{}); valid != (err == nil) || got != want {
			t.Errorf("ParseID(%q) = %v, %v, want %v", text, got, err, want)
		}
		if err != nil && !errors.Is(err, event.ErrID) {
			t.Errorf("ParseID(%q): %v is not ErrID", text, err)
		}
		if err == nil && got.String() != text {
			t.Errorf("%q has a second text %q", text, got)
		}
	}
}

func TestEventIDsAreTotallyOrdered(t *testing.T) {
	id := rapid.Custom(func(t *rapid.T) event.ID {
		return event.ID{
			Fence: event.Fence(rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64Range(0, 1<<60-1)).Draw(t, "fence")),
			Seq:   rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64()).Draw(t, "seq"),
		}
	})
	rapid.Check(t, func(r *rapid.T) {
		a, b := id.Draw(r, "a"), id.Draw(r, "b")
		if ways := count(a.Less(b), b.Less(a), a == b); ways != 1 {
			r.Fatalf("%v and %v: %d of less, greater and equal hold", a, b, ways)
		}
		if a.Fence < b.Fence && !a.Less(b) {
			r.Fatalf("%v is not before %v, whatever the sequence", a, b)
		}
		if a.IsZero() != (a == event.ID{}) || a.Less(event.ID{}) {
			r.Fatalf("%v against the zero id", a)
		}
	})
}

func count(all ...bool) int {
	n := 0
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

func TestAnEventIDIsTextInJSON(t *testing.T) {
	id := event.TerminalID(3)
	raw, err := json.Marshal(event.Event{ID: id, Type: event.Succeeded, TaskID: "task_1"})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":"18014398509481983-0","type":"succeeded","task_id":"task_1"}`; string(raw) != want {
		t.Errorf("JSON %s, want %s", raw, want)
	}
	var back event.Event
	if err := json.Unmarshal(raw, &back); err != nil || back.ID != id {
		t.Errorf("read back as %v, %v", back.ID, err)
	}
	for _, bad := range []string{`{"id":18014398509481983}`, `{"id":"1"}`, `{"id":""}`} {
		if err := json.Unmarshal([]byte(bad), &event.Event{}); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	raw, err = json.Marshal(event.Event{Type: event.Reconnect, TaskID: "task_1"})
	if want := `{"type":"reconnect","task_id":"task_1"}`; err != nil || string(raw) != want {
		t.Errorf("without an id: %s, %v, want %s", raw, err, want)
	}
}

func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"0-0", "0-1", "1-01", "18446744073709551615-1", "1152921504606846975-0", "-", "1-1-1", "+1-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := event.ParseID(s)
		if err != nil {
			if id != (event.ID{}) || !errors.Is(err, event.ErrID) {
				t.Fatalf("ParseID(%q) = %v, %v", s, id, err)
			}
			return
		}
		if id.String() != s || len(id.Fence.Padded()) != event.FenceDigits {
			t.Fatalf("ParseID(%q) = %v, padded fence %q", s, id, id.Fence.Padded())
		}
		raw, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		var back event.ID
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(id, back); diff != "" {
			t.Fatalf("%s reads back differently: %s", raw, diff)
		}
	})
}
