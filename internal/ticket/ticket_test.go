package ticket_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/schema/task"
)

func secret(number uint8) task.Secret {
	return task.Secret{Number: number, Key: []byte("0123456789abcdef" + string(rune('a'+number)))}
}

func sign(t interface{ Fatal(...any) }, s *ticket.Signer, g ticket.Grant) string {
	text, err := s.Sign(g)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestATicketSaysWhatWasGranted(t *testing.T) {
	t.Parallel()
	s := ticket.NewSigner(secret(1))
	rapid.Check(t, func(t *rapid.T) {
		want := ticket.Grant{
			KeyID: rapid.StringN(-1, -1, 255).Draw(t, "key"), Task: task.ID(rapid.SampledFrom([]string{"", "task_" + strings.Repeat("0", 48)}).Draw(t, "task")),
			Expires: time.Unix(rapid.Int64Range(0, 1<<40).Draw(t, "expires"), 0),
		}
		text := sign(t, s, want)
		got, err := s.Read(text)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Fatalf("%v %s", err, d)
		}
	})
}

func TestNothingOfATicketCanBeChanged(t *testing.T) {
	t.Parallel()
	s := ticket.NewSigner(secret(1))
	good := sign(t, s, ticket.Grant{KeyID: "k1", Task: task.ID("task_" + strings.Repeat("0", 48)), Expires: time.Unix(1e9, 0)})
	refused := func(name, text string) {
		t.Helper()
		_, err := s.Read(text)
		if !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(text) > 20 && strings.Contains(err.Error(), text[len(text)-20:]) {
			t.Error("the error shows the ticket")
		}
	}
	for i := range good {
		for _, c := range []byte{'A', 'z', '_', '=', '\n'} {
			if good[i] != c {
				refused("another character", good[:i]+string(c)+good[i+1:])
			}
		}
		refused("the beginning", good[:i])
	}
	refused("more of it", good+"AAAA")
	refused("padding", good+"=")
	refused("too long", good+strings.Repeat("A", 1<<16))
	refused("another secret's", sign(t, ticket.NewSigner(task.Secret{Number: 1, Key: []byte("another secret of ours")}), ticket.Grant{}))
	refused("an unknown secret's", sign(t, ticket.NewSigner(secret(2)), ticket.Grant{}))
	if _, err := s.Sign(ticket.Grant{KeyID: strings.Repeat("k", 256)}); err == nil {
		t.Error("a key's id that does not fit was signed")
	}
}

func TestATicketOfARetiredSecretIsStillGood(t *testing.T) {
	t.Parallel()
	old := sign(t, ticket.NewSigner(secret(1)), ticket.Grant{KeyID: "k"})
	if g, err := ticket.NewSigner(secret(2), secret(1)).Read(old); err != nil || g.KeyID != "k" {
		t.Errorf("%+v, %v", g, err)
	}
}
