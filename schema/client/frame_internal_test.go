package client

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// readFrames returns every frame as `id|event|data`.
func readFrames(r io.Reader) (out []string, last *frames, err error) {
	last = newFrames(r)
	for f, err := range last.all() {
		if err != nil {
			return out, last, err
		}
		out = append(out, f.id+"|"+f.event+"|"+string(f.data))
	}
	return out, last, nil
}

func TestFramesAreReadAsTheStandardSays(t *testing.T) {
	for name, tc := range map[string]struct {
		stream string
		want   []string
	}{
		"id, event and data":                 {"id: 1-1\nevent: delta\ndata: {}\n\n", []string{"1-1|delta|{}"}},
		"CR and CRLF end lines too":          {"id: 1\r\nevent: a\r\ndata: x\r\n\r\nid: 2\revent: b\rdata: y\r\r", []string{"1|a|x", "2|b|y"}},
		"several lines of data are joined":   {"data: a\ndata:\ndata: b\n\n", []string{"||a\n\nb"}},
		"one space after the colon goes":     {"data:  a\ndata:b\n\n", []string{"|| a\nb"}},
		"comments are skipped":               {": ping\n\n: ping\ndata: a\n\n", []string{"||a"}},
		"a frame without data is none":       {"event: a\n\ndata: x\n\n", []string{"||x"}},
		"an id holds until the next":         {"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", []string{"1||a", "1||b", "||c"}},
		"an id with NUL is ignored":          {"id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n", []string{"1||a", "1||b"}},
		"a byte order mark is skipped":       {"\ufeffdata: a\n\n", []string{"||a"}},
		"what has no end is no frame":        {"data: a\n\ndata: b\n", []string{"||a"}},
		"what has no end of line is no line": {"data: a\n\ndata: b\n\ndata: c", []string{"||a", "||b"}},
		"unknown fields are ignored":         {"color: red\ndata: a\ncolor\n\n", []string{"||a"}},
		"nothing at all":                     {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{
				"at once": strings.NewReader(tc.stream), "byte by byte": iotest.OneByteReader(strings.NewReader(tc.stream)),
			} {
				got, _, err := readFrames(r)
				if diff := cmp.Diff(tc.want, got); diff != "" || err != nil {
					t.Errorf("%s: %v %s", how, err, diff)
				}
			}
		})
	}
}

func TestTheServersWishToWaitIsRead(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"retry: 1500\n":            1500 * time.Millisecond,
		"retry: 1500\nretry: x\n":  1500 * time.Millisecond,
		"retry: -1\n":              0,
		"retry: +1\n":              0,
		"retry: 99999999999\n":     0,
		"retry: 10\nretry: 20\n\n": 20 * time.Millisecond,
	} {
		if _, f, err := readFrames(strings.NewReader(text)); f.retry != want || err != nil {
			t.Errorf("%q: %s, %v", text, f.retry, err)
		}
	}
}

func TestALineTooLongIsAnErrorOfItsOwn(t *testing.T) {
	f := newFrames(strings.NewReader("data: " + strings.Repeat("x", 1<<10) + "\n\n"))
	f.lines.Buffer(nil, 1<<9)
	for _, err := range f.all() {
		if !errors.Is(err, errFrameTooLong) {
			t.Errorf("%v", err)
		}
	}
}

func TestABrokenStreamIsTold(t *testing.T) {
	broke := errors.New("reset by peer")
	got, _, err := readFrames(io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(broke)))
	if !errors.Is(err, broke) || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzFrames(f *testing.F) {
	for _, seed := range []string{"id: 1\nevent: a\ndata: x\n\n", "data: a\r\n\r\n\rdata", "\ufeff: c\n\nretry: 5\n\n", "id\n\n\ndata\n\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream string) {
		whole, _, err := readFrames(strings.NewReader(stream))
		if err != nil {
			t.Fatal(err)
		}
		bytewise, _, err := readFrames(iotest.OneByteReader(strings.NewReader(stream)))
		if diff := cmp.Diff(whole, bytewise); diff != "" || err != nil {
			t.Fatalf("how it comes changes what it says: %v %s", err, diff)
		}
		for _, frame := range whole {
			if data := frame[strings.LastIndex(frame, "|")+1:]; strings.Contains(data, "\r") {
				t.Fatalf("a line end in %q", frame)
			}
		}
	})
}
