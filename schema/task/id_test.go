package task_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/task"
	"pgregory.net/rapid"
)

var (
	noon   = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	first  = task.Secret{Number: 1, Key: bytes.Repeat([]byte{1}, 32)}
	second = task.Secret{Number: 2, Key: bytes.Repeat([]byte{2}, 32)}
)

func minter(t testing.TB, current task.Secret, retired ...task.Secret) *task.Minter {
	t.Helper()
	m, err := task.NewMinter(current, retired...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAnIDSaysWhenAndForWhomItWasMade(t *testing.T) {
	m := minter(t, first)
	rapid.Check(t, func(r *rapid.T) {
		tenant := rapid.String().Draw(r, "tenant")
		other := rapid.String().Filter(func(s string) bool { return s != tenant }).Draw(r, "other tenant")
		at := time.UnixMilli(rapid.Int64Range(0, 1<<48-1).Draw(r, "ms")).UTC()

		id := m.New(tenant, at)
		if parsed, err := task.ParseID(string(id)); err != nil || parsed != id || len(id) != task.IDLength {
			r.Fatalf("ParseID(%q) = %q, %v", id, parsed, err)
		}
		if !id.Time().Equal(at) {
			r.Fatalf("Time() = %v, want %v", id.Time(), at)
		}
		if err := m.Check(id, tenant); err != nil {
			r.Fatalf("its own tenant is refused: %v", err)
		}
		if err := m.Check(id, other); !errors.Is(err, task.ErrForeignID) {
			r.Fatalf("tenant %q may use the id of %q: %v", other, tenant, err)
		}
	})
}

func TestAChangedIDIsRefused(t *testing.T) {
	m := minter(t, first, second)
	id := m.New("acme", noon)
	const alphabet = "0123456789abcdefghijklmnopqrstuv"
	for at := len("task_"); at < len(id); at++ {
		for _, c := range []byte(alphabet) {
			changed := []byte(id)
			if changed[at] == c {
				continue
			}
			changed[at] = c
			if err := m.Check(task.ID(changed), "acme"); !errors.Is(err, task.ErrForeignID) {
				t.Fatalf("%s passes for %s: %v", changed, id, err)
			}
		}
	}
}

func TestFreshIDsDiffer(t *testing.T) {
	m := minter(t, first)
	seen := map[task.ID]bool{}
	for range 1000 {
		seen[m.New("acme", noon)] = true
	}
	if len(seen) != 1000 {
		t.Errorf("1000 ids of one millisecond are %d different ones", len(seen))
	}
}

func TestRotatedSecretsCheckTheIDsTheySigned(t *testing.T) {
	old := minter(t, first).New("acme", noon)
	both := minter(t, second, first)
	if err := both.Check(old, "acme"); err != nil {
		t.Errorf("an id of the retired secret: %v", err)
	}
	if err := both.Check(both.New("acme", noon), "acme"); err != nil {
		t.Errorf("an id of the new secret: %v", err)
	}
	if err := minter(t, second).Check(old, "acme"); !errors.Is(err, task.ErrForeignID) {
		t.Errorf("an id of a secret nobody knows: %v, want ErrForeignID", err)
	}
	impostor := task.Secret{Number: first.Number, Key: second.Key}
	if err := minter(t, impostor).Check(old, "acme"); !errors.Is(err, task.ErrForeignID) {
		t.Errorf("an id of another key under the same number: %v, want ErrForeignID", err)
	}
}

func TestAMinterRefusesUnsafeSecrets(t *testing.T) {
	short := task.Secret{Number: 3, Key: make([]byte, 15)}
	for name, secrets := range map[string][]task.Secret{
		"a short current secret": {short},
		"a short retired secret": {first, short},
		"no secret":              {{}},
		"one number used twice":  {first, {Number: first.Number, Key: second.Key}},
	} {
		if _, err := task.NewMinter(secrets[0], secrets[1:]...); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestAKeyedIDIsTheSameOnEveryNode(t *testing.T) {
	here, there := minter(t, first), minter(t, first, second)
	body := sha256.Sum256([]byte("body"))
	base := here.Keyed("acme", "order-17", body, noon)
	if got := there.Keyed("acme", "order-17", body, noon.Add(11*time.Hour)); got != base {
		t.Errorf("another node, later that day: %s, want %s", got, base)
	}
	if err := there.Check(base, "acme"); err != nil {
		t.Errorf("another node refuses it: %v", err)
	}
	if want := noon.Truncate(task.Bucket); !base.Time().Equal(want) {
		t.Errorf("Time() = %v, want the start of its bucket %v", base.Time(), want)
	}
	for name, got := range map[string]task.ID{
		"another tenant":     here.Keyed("other", "order-17", body, noon),
		"another key":        here.Keyed("acme", "order-18", body, noon),
		"another body":       here.Keyed("acme", "order-17", sha256.Sum256([]byte("other")), noon),
		"another day":        here.Keyed("acme", "order-17", body, noon.Add(task.Bucket)),
		"another secret":     minter(t, second).Keyed("acme", "order-17", body, noon),
		"a moved field edge": here.Keyed("acmeorder", "-17", body, noon),
	} {
		if got == base {
			t.Errorf("%s gives the same id", name)
		}
	}
}

func TestIDsSortByTime(t *testing.T) {
	m := minter(t, first)
	rapid.Check(t, func(r *rapid.T) {
		times := rapid.SliceOfNDistinct(rapid.Int64Range(0, 1<<48-1), 2, 20, rapid.ID[int64]).Draw(r, "ms")
		ids := make([]task.ID, len(times))
		for i, ms := range times {
			ids[i] = m.New("acme", time.UnixMilli(ms))
		}
		slices.Sort(ids)
		if !slices.IsSortedFunc(ids, func(a, b task.ID) int { return cmp.Compare(a.Time().UnixMilli(), b.Time().UnixMilli()) }) {
			r.Fatalf("text order is not time order: %v", ids)
		}
	})
}

func TestAnIDHasOneText(t *testing.T) {
	id := string(minter(t, first).New("acme", noon))
	body := id[len("task_"):]
	raw, err := base32.HexEncoding.DecodeString(strings.ToUpper(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":                          "",
		"the prefix alone":                 "task_",
		"no prefix":                        body,
		"an upper-case prefix":             "TASK_" + body,
		"another prefix":                   "tusk_" + body,
		"upper case":                       "task_" + strings.ToUpper(body),
		"one upper-case letter":            "task_" + strings.Repeat("0", 47) + "A",
		"the standard base32 alphabet":     "task_" + strings.Repeat("z", 48),
		"padding":                          id + "=",
		"padding within the length":        id[:len(id)-1] + "=",
		"a character too few":              id[:len(id)-1],
		"a character too many":             id + "0",
		"a space before":                   " " + id,
		"a newline after":                  id + "\n",
		"a newline within the length":      id[:len(id)-1] + "\n",
		"newlines the decoder would skip":  "task_" + body[:40] + "\r\n\r\n\r\n\r\n",
		"a letter whose upper case is S":   "task_" + body[:46] + "ſ",
		"the Kelvin sign":                  "task_" + body[:45] + "K",
		"a NUL":                            id[:len(id)-1] + "\x00",
		"one byte less":                    "task_" + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:29])),
		"a hyphen instead of an underline": "task-" + body,
	} {
		if got, err := task.ParseID(text); !errors.Is(err, task.ErrID) || got != "" {
			t.Errorf("%s: ParseID(%q) = %q, %v, want ErrID", name, text, got, err)
		}
		if err := minter(t, first).Check(task.ID(text), "acme"); !errors.Is(err, task.ErrID) {
			t.Errorf("%s: Check(%q) = %v, want ErrID", name, text, err)
		}
		if at := task.ID(text).Time(); !at.IsZero() {
			t.Errorf("%s: Time() = %v, want none", name, at)
		}
	}
}

func FuzzParseID(f *testing.F) {
	m := minter(f, first)
	id := string(m.New("acme", noon))
	for _, seed := range []string{id, strings.ToUpper(id), id + "=", "task_", "", "task_" + strings.Repeat("v", 48), "task_" + strings.Repeat("0", 46) + "ſ"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := task.ParseID(s)
		if err != nil {
			if parsed != "" || !errors.Is(err, task.ErrID) {
				t.Fatalf("ParseID(%q) = %q, %v", s, parsed, err)
			}
			return
		}
		raw, err := base32.HexEncoding.DecodeString(strings.ToUpper(strings.TrimPrefix(s, "task_")))
		if err != nil || "task_"+strings.ToLower(base32.HexEncoding.EncodeToString(raw)) != s {
			t.Fatalf("%q is accepted, and is not the one text of its bytes %x", s, raw)
		}
		if parsed.Time().IsZero() {
			t.Fatalf("%q has no time", s)
		}
		if err := m.Check(parsed, "acme"); err != nil && s == id {
			t.Fatalf("%q is refused: %v", s, err)
		}
	})
}
