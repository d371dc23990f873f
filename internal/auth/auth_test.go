package auth_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/internal/auth"
)

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	good, key := auth.GenerateKey("acme", []string{auth.ScopeRead}, time.Time{})
	gone, revoked := auth.GenerateKey("acme", []string{auth.ScopeAll}, time.Time{})
	revoked.Revoked = true
	keys, err := auth.NewKeys([]auth.Key{key, revoked})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("a key names its tenant and scopes", func(t *testing.T) {
		t.Parallel()
		p, err := keys.Authenticate(t.Context(), good)
		if err != nil || p.Tenant != "acme" || p.KeyID != key.ID || !p.Has(auth.ScopeRead) || p.Has(auth.ScopeAdmin) {
			t.Errorf("got %+v, %v", p, err)
		}
		if err := p.Require(auth.ScopeAdmin); !errors.Is(err, auth.ErrForbidden) {
			t.Errorf("got %v, want ErrForbidden", err)
		}
	})
	id, secret, _ := strings.Cut(good, ".")
	for name, bearer := range map[string]string{
		"no token":              "",
		"a foreign token":       "sk-1234",
		"a key without secret":  id,
		"an empty secret":       id + ".",
		"another key's secret":  id + "." + strings.SplitN(gone, ".", 2)[1],
		"a cut secret":          good[:len(good)-1],
		"an unknown id":         "penstock_nobody." + secret,
		"the stored hash":       id + "." + key.SHA256,
		"a revoked key":         gone,
		"a key without prefix":  strings.TrimPrefix(good, "penstock_"),
		"the zero hash's owner": "penstock_nobody.",
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			t.Parallel()
			p, err := keys.Authenticate(t.Context(), bearer)
			if !errors.Is(err, auth.ErrUnauthenticated) || p.Tenant != "" {
				t.Errorf("got %+v, %v", p, err)
			}
			if bearer != "" && err != nil && strings.Contains(err.Error(), secret) {
				t.Error("the error shows the secret")
			}
		})
	}
}

func TestAKeyExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		text, key := auth.GenerateKey("acme", []string{auth.ScopeAll}, time.Now().Add(time.Hour))
		keys, err := auth.NewKeys([]auth.Key{key})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		if _, err := keys.Authenticate(t.Context(), text); err != nil {
			t.Errorf("expired early: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := keys.Authenticate(t.Context(), text); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("got %v, want ErrUnauthenticated", err)
		}
	})
}

func TestKeysFile(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "keys.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sum := strings.Repeat("ab", 32)
	t.Run("is read", func(t *testing.T) {
		t.Parallel()
		if _, err := auth.OpenKeys(write(t, "keys:\n- {id: a, tenant: acme, sha256: "+sum+", scopes: [read], expires: 2030-01-01T00:00:00Z}\n")); err != nil {
			t.Error(err)
		}
	})
	t.Run("reports all its faults", func(t *testing.T) {
		t.Parallel()
		_, err := auth.OpenKeys(write(t, "keys:\n- {id: a.b, sha256: zz, scopes: [reed]}\n- {id: x, tenant: t, sha256: "+sum+", scopes: [read]}\n- {id: x, tenant: t, sha256: "+sum+", scopes: [read]}\n"))
		for _, want := range []string{"keys[0]", "tenant is missing", "64 hex digits", `unknown scope "reed"`, `keys[2]: id "x" is used twice`} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q is missing from %v", want, err)
			}
		}
	})
	t.Run("refuses an unknown field, an empty file and none", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{write(t, "keys:\n- {id: a, secret: x}\n"), write(t, "keys: []\n"), write(t, ""), "/nonexistent"} {
			if _, err := auth.OpenKeys(path); err == nil {
				t.Errorf("%s was accepted", path)
			}
		}
	})
}

func TestDevIsForLoopbackOnly(t *testing.T) {
	t.Parallel()
	keys, err := auth.NewKeys([]auth.Key{{ID: "a", Tenant: "t", SHA256: strings.Repeat("ab", 32), Scopes: []string{"*"}}})
	if err != nil {
		t.Fatal(err)
	}
	for listen, ok := range map[string]bool{"127.0.0.1:0": true, "[::1]:80": true, "localhost:8080": true, ":8080": false, "0.0.0.0:1": false, "10.0.0.1:1": false, "example.com:1": false, "nonsense": false} {
		if err := auth.CheckBind(auth.Dev{}, listen); (err == nil) != ok {
			t.Errorf("CheckBind(Dev, %q) = %v", listen, err)
		}
		if err := auth.CheckBind(keys, listen); err != nil {
			t.Errorf("CheckBind(Keys, %q) = %v", listen, err)
		}
	}
	p, err := auth.Dev{}.Authenticate(t.Context(), "anything")
	if err != nil || p.Tenant != "dev" || !p.Has(auth.ScopeAdmin) {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestConfigChoosesWhoMayCall(t *testing.T) {
	t.Parallel()
	if a, err := (auth.Config{}).Open("127.0.0.1:0"); err != nil || a != (auth.Dev{}) {
		t.Errorf("on loopback: got %v, %v", a, err)
	}
	if a, err := (auth.Config{}).Open(":8080"); err == nil || a != nil {
		t.Errorf("without keys on every interface: got %v, %v", a, err)
	}
	if a, err := (auth.Config{KeysFile: "/nonexistent"}).Open(":8080"); err == nil || a != nil {
		t.Errorf("without its file: got %v, %v", a, err)
	}
}

func TestThePrincipalTravelsInTheContext(t *testing.T) {
	t.Parallel()
	if _, ok := auth.From(t.Context()); ok {
		t.Error("an empty context has a caller")
	}
	p, ok := auth.From(auth.With(t.Context(), auth.Principal{Tenant: "acme"}))
	if !ok || p.Tenant != "acme" {
		t.Errorf("got %+v, %v", p, ok)
	}
}
