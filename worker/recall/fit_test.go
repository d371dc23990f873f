package recall_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/worker/recall"
)

func turns() *rapid.Generator[recall.Turn] {
	return rapid.Custom(func(t *rapid.T) recall.Turn {
		said := func(name string) json.RawMessage {
			return json.RawMessage(`"` + strings.Repeat("x", rapid.IntRange(0, 40).Draw(t, name)) + `"`)
		}
		return recall.Turn{Asked: []json.RawMessage{said("asked")}, Answer: said("answer"), Tokens: rapid.IntRange(0, 30).Draw(t, "tokens")}
	})
}

func TestTheNewestWholeTurnsThatFitAreTaken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(turns(), 0, 20).Draw(t, "turns")
		budget := rapid.IntRange(-10, 300).Draw(t, "budget")
		got := recall.Fit(budget, all)
		if diff := cmp.Diff(all[len(all)-len(got):], got, cmp.Transformer("none", func(ts []recall.Turn) []recall.Turn {
			return append([]recall.Turn{}, ts...)
		})); diff != "" {
			t.Fatalf("not the newest, whole and in order (-want +got)\n%s", diff)
		}
		used := 0
		for _, turn := range got {
			used += turn.Tokens
		}
		if len(got) > 0 && used > budget {
			t.Fatalf("%d tokens of %d", used, budget)
		}
		if n := len(all) - len(got); n > 0 && used+all[n-1].Tokens <= budget {
			t.Fatalf("turn %d of %d would have fitted: %d + %d of %d", n-1, len(all), used, all[n-1].Tokens, budget)
		}
	})
}

func TestATurnThatIsLargeAndCountedAsFewTokensIsLeftOut(t *testing.T) {
	large := recall.Turn{Answer: make(json.RawMessage, recall.MaxBytes+1), Tokens: 1}
	small := recall.Turn{Answer: json.RawMessage(`"x"`), Tokens: 1}
	if got := recall.Fit(100, []recall.Turn{small, large, small}); len(got) != 1 {
		t.Errorf("%d turns", len(got))
	}
}
