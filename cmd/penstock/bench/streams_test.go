package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/worker/backend/simulated"
)

func TestReadChat(t *testing.T) {
	const begun = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n: ping\ndata: {\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n"
	for _, c := range []struct{ name, stream, fails string }{
		{"a whole answer is heard", begun + "data: [DONE]\n\n", ""},
		{"an end without [DONE] is no end", begun, errCutShort.Error()},
		{"an error is one", begun + "data: {\"error\":{\"code\":\"generation_interrupted\"}}\n\n", "generation_interrupted"},
		{"and so is nonsense", begun + "data: {\n\n", "decode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := ""
			err := readChat(strings.NewReader(c.stream), func(s string) error { text += s; return nil })
			if text != "ab" {
				t.Errorf("heard %q", text)
			}
			if (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("the error is %v, want one with %q", err, c.fails)
			}
		})
	}
}

// speak is an asker that says so many stamps, each of an age, in pieces of two.
func speak(tokens int, age time.Duration) asker {
	return func(_ context.Context, hear func(string) error) error {
		for range tokens / 2 {
			time.Sleep(30 * time.Millisecond)
			born := simulated.Stamp(time.Now().Add(-age))
			if err := hear(born + born); err != nil {
				return err
			}
		}
		return hear("")
	}
}

func TestListen(t *testing.T) {
	t.Run("the first token and the age of each are noted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHearing()
			if err := h.listen(t.Context(), speak(6, 17*time.Millisecond), 6); err != nil {
				t.Fatal(err)
			}
			first, age := merge([]*tally{h.first}, 0), merge([]*tally{h.age}, 0)
			if first.Calls != 1 || short(first.Quantile(50)) != "30ms" {
				t.Errorf("%d first tokens, after %s; want one after 30ms", first.Calls, first.Quantile(50))
			}
			if age.Calls != 6 || short(age.Quantile(0)) != "17ms" || short(age.Quantile(100)) != "17ms" {
				t.Errorf("%d ages from %s to %s; want 6 of 17ms", age.Calls, age.Quantile(0), age.Quantile(100))
			}
		})
	})
	t.Run("a token too few is an error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if err := newHearing().listen(t.Context(), speak(6, 0), 7); err == nil {
				t.Error("it passes")
			}
		})
	})
}

func TestTurn(t *testing.T) {
	t.Run("streams begin apart and follow themselves", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, began := newHearing(), time.Now()
			err := turn{streams: 4, tokens: 4, length: 200 * time.Millisecond, ask: speak(4, 0), heard: h}.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// Every answer takes 60 ms; the last stream begins at 60 ms, and its last answer before 200 ms.
			if took := time.Since(began); took != 240*time.Millisecond {
				t.Errorf("the turn took %s, want 240ms", took)
			}
			if h.first.calls != 4+3+3+3 {
				t.Errorf("%d answers, want 13", h.first.calls)
			}
		})
	})
	t.Run("the first failure ends it", func(t *testing.T) {
		broken := errors.New("broken")
		ask := func(context.Context, func(string) error) error { return broken }
		err := turn{streams: 4, tokens: 4, length: time.Hour, ask: ask, heard: newHearing()}.run(t.Context())
		if !errors.Is(err, broken) {
			t.Errorf("it ended with %v", err)
		}
	})
}

// sideOf makes a side whose calls all took as long as each other.
func sideOf(name string, streams int, first, age time.Duration) StreamedSide {
	h := newHearing()
	h.first.add(first, nil)
	h.age.add(age, nil)
	return StreamedSide{Name: name, Streams: streams, First: merge([]*tally{h.first}, 0), Age: merge([]*tally{h.age}, 0)}
}

func TestAnswersTable(t *testing.T) {
	plain := func(d time.Duration) Result {
		h := newTally()
		h.add(d, nil)
		return merge([]*tally{h}, 0)
	}
	r := AnswersReport{
		Streamed: []StreamedSide{
			sideOf(sideEngine, 1, 20*time.Millisecond, 90*time.Millisecond), // its own age is not ours
			sideOf(sideOpenAI, 1, 26*time.Millisecond, 41*time.Millisecond),
			sideOf(sideNative, 1, 34*time.Millisecond, 44*time.Millisecond),
		},
		Plain: []PlainSide{{sideEngine, "1 caller", plain(time.Millisecond)}, {sideOpenAI, "1 caller", plain(8 * time.Millisecond)}},
	}
	var out strings.Builder
	if err := (StreamsReport{Answers: r}).table(&out); err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for line := range strings.Lines(out.String()) {
		for _, name := range []string{"age of a token", "1  " + sideOpenAI, "1  " + sideNative, "1 caller  " + sideOpenAI} {
			if f := strings.Join(strings.Fields(line), " "); strings.HasPrefix(f, strings.Join(strings.Fields(name), " ")) {
				lines[name] = f
			}
		}
	}
	for name, want := range map[string]string{
		"age of a token":          "age of a token when it is delivered, p99 44ms - - 45ms reached",
		"1  " + sideOpenAI:        "1 queue, OpenAI API 1 26ms 26ms 6ms 6ms 41ms 41ms 41ms",
		"1  " + sideNative:        "1 queue, native SSE 1 34ms 34ms 14ms 14ms 44ms 44ms 44ms",
		"1 caller  " + sideOpenAI: "1 caller queue, OpenAI API 1 8ms 8ms 7ms 7ms",
	} {
		if lines[name] != want {
			t.Errorf("the table says %q, want %q", lines[name], want)
		}
	}
}
