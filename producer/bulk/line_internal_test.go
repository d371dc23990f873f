package bulk

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func FuzzLine(f *testing.F) {
	for _, seed := range []string{
		`{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"model":"m"}}`, `{"custom_id":"a","custom_id":"b"}`,
		`[]`, `{"body":1}`, `{"custom_id":null}`, "\xff", `{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"a":{"a":1,"a":2}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, fault := parseLine(raw, "/v1/completions")
		if fault != nil {
			if fault.Code == "" || fault.Message == "" {
				t.Errorf("%q: a fault that says nothing", raw)
			}
			return
		}
		var m map[string]json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatalf("%q is taken and is no object: %v", raw, err)
		}
		if l.CustomID == "" || l.Method != "POST" || !json.Valid(l.Body) || l.Body[0] != '{' {
			t.Errorf("%q is taken as %+v", raw, l)
		}
	})
}

// What the reader gives are the lines of the file that are not empty, in order,
// wherever reads break.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\n\nb\r\n c"), uint8(3))
	f.Add([]byte("\n\n"), uint8(1))
	f.Add(bytes.Repeat([]byte("x"), 300), uint8(7))
	f.Fuzz(func(t *testing.T, content []byte, step uint8) {
		const limit = 128
		var want []string
		tooLarge := false
		for part := range strings.Lines(string(content)) {
			if len(part) > limit {
				tooLarge = true
				break
			}
			if s := strings.TrimSpace(part); s != "" {
				want = append(want, s)
			}
		}
		in := newLines(iotestReader{bytes.NewReader(content), int(step) + 1}, limit)
		for i := 0; ; i++ {
			raw, err := in.next()
			switch {
			case errors.Is(err, io.EOF) || errors.Is(err, errLineTooLarge):
				if i != len(want) || tooLarge != errors.Is(err, errLineTooLarge) {
					t.Fatalf("%q: %d lines, %v; want %d", content, i, err, len(want))
				}
				return
			case err != nil:
				t.Fatal(err)
			case i >= len(want) || string(raw) != want[i] || in.place != i:
				t.Fatalf("%q: line %d is %q at %d", content, i, raw, in.place)
			}
		}
	})
}

// iotestReader gives a few bytes at a time.
type iotestReader struct {
	r    io.Reader
	most int
}

func (r iotestReader) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), r.most)]) }

func TestALineSetComesBackFromItsSpans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[int]bool{}
		var s lineSet
		for _, n := range rapid.SliceOf(rapid.IntRange(0, 300)).Draw(t, "lines") {
			want[n] = true
			s.add(n)
		}
		var back lineSet
		spans := s.spans()
		back.addAll(spans)
		if s.len() != len(want) || back.len() != len(want) {
			t.Fatalf("%d lines, %d in the set, %d back", len(want), s.len(), back.len())
		}
		for n := range 301 {
			if back.has(n) != want[n] {
				t.Fatalf("line %d: %t in %v", n, back.has(n), spans)
			}
		}
		for i := 1; i < len(spans); i++ {
			if spans[i][0] <= spans[i-1][1]+1 {
				t.Fatalf("%v are not the fewest spans", spans)
			}
		}
	})
}

func TestSpansOutOfBoundsAreLeftOut(t *testing.T) {
	var s lineSet
	s.addAll([]span{{-5, 1}, {MaxLines - 1, MaxLines + 1<<40}, {7, 3}})
	if s.len() != 3 || !s.has(0) || !s.has(1) || !s.has(MaxLines-1) || s.has(-1) {
		t.Errorf("%v", s.spans())
	}
}

func TestPagesTogetherAreTheList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfDistinct(rapid.StringMatching(`[a-z]{1,3}`), rapid.ID[string]).Draw(t, "ids")
		p := Page{Limit: rapid.IntRange(1, 4).Draw(t, "limit"), Ascending: rapid.Bool().Draw(t, "ascending")}
		all, _ := page(append([]string(nil), ids...), Page{Limit: len(ids) + 1, Ascending: p.Ascending}, func(s string) string { return s })
		var got []string
		for {
			part, more := page(append([]string(nil), ids...), p, func(s string) string { return s })
			got = append(got, part...)
			if !more {
				break
			}
			p.After = part[len(part)-1]
		}
		if strings.Join(got, " ") != strings.Join(all, " ") {
			t.Fatalf("%v in pages, %v at once", got, all)
		}
	})
}
