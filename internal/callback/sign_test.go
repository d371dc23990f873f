package callback_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/task"
)

// signature is what the standard asks for, step by step.
func signature(t *testing.T, secret, id string, at int64, body string) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", id, at, body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func keys(current string, retired ...string) *callback.Keys {
	var old []task.Secret
	for i, s := range retired {
		old = append(old, task.Secret{Number: uint8(i), Key: []byte(s)})
	}
	return callback.NewKeys(task.Secret{Number: 200, Key: []byte(current)}, old...)
}

func TestCallsAreSignedAsTheStandardSays(t *testing.T) {
	const vector = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" // of the standard's own tests
	if got := signature(t, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, `{"test": 2432232314}`); got != vector {
		t.Fatalf("this test signs wrongly: %s", got)
	}
	k := keys("a secret of sixteen bytes")
	at := time.Unix(1_700_000_000, 999)
	h, err := k.Sign("acme", "evt_1", at, []byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	want := signature(t, k.Secret("acme").Reveal(), "evt_1", at.Unix(), `{"a":1}`)
	if got := h.Get("webhook-signature"); got != want {
		t.Errorf("signature %s; want %s", got, want)
	}
	if h.Get("webhook-id") != "evt_1" || h.Get("webhook-timestamp") != strconv.FormatInt(at.Unix(), 10) {
		t.Errorf("headers %v", h)
	}
}

func TestEachTenantHasASecretOfItsOwn(t *testing.T) {
	k := keys("a secret of sixteen bytes")
	seen := map[config.Secret]bool{}
	for _, tenant := range []string{"acme", "acm", "", "acme2"} {
		seen[k.Secret(tenant)] = true
	}
	seen[keys("another secret of enough bytes").Secret("acme")] = true
	if len(seen) != 5 {
		t.Errorf("%d different secrets of 5", len(seen))
	}
	if k.Secret("acme") != keys("a secret of sixteen bytes").Secret("acme") {
		t.Error("another node has another secret")
	}
	if text := fmt.Sprint(k.Secret("acme")); strings.Contains(text, "whsec_") {
		t.Errorf("a secret prints as %s", text)
	}
}

func TestReceiversVerifyWhileSecretsRotate(t *testing.T) {
	before, during, after := keys("the first of the secrets"), keys("the second of the secrets", "the first of the secrets"), keys("the second of the secrets")
	body := []byte(`{"type":"task.succeeded"}`)
	for name, c := range map[string]struct {
		signs, knows *callback.Keys
		ok           bool
	}{
		"before":                         {before, before, true},
		"one who knows the old secret":   {during, before, true},
		"one who knows the new secret":   {during, after, true},
		"the old one once it is retired": {after, before, false},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := c.signs.Sign("acme", "evt_1", time.Now(), body)
			if err != nil {
				t.Fatal(err)
			}
			v, err := callback.NewVerifier(c.knows.Secret("acme"))
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Verify(h, body); (err == nil) != c.ok {
				t.Errorf("verified: %v", err)
			}
		})
	}
}

func TestAVerifierRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keys("a secret of sixteen bytes")
		v, err := callback.NewVerifier(k.Secret("acme"))
		if err != nil {
			t.Fatal(err)
		}
		body := []byte(`{"a":1}`)
		sign := func(tenant string, at time.Time) http.Header {
			h, err := k.Sign(tenant, "evt_1", at, body)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		renamed := sign("acme", time.Now())
		renamed.Set("webhook-id", "evt_2")
		for name, c := range map[string]struct {
			h    http.Header
			body string
			ok   bool
		}{
			"nothing of what was sent":   {sign("acme", time.Now()), `{"a":1}`, true},
			"another body":               {sign("acme", time.Now()), `{"a":2}`, false},
			"another tenant's":           {sign("other", time.Now()), `{"a":1}`, false},
			"another id":                 {renamed, `{"a":1}`, false},
			"one made six minutes ago":   {sign("acme", time.Now().Add(-6*time.Minute)), `{"a":1}`, false},
			"one made six minutes hence": {sign("acme", time.Now().Add(6*time.Minute)), `{"a":1}`, false},
			"one without headers":        {http.Header{}, `{"a":1}`, false},
		} {
			if err := v.Verify(c.h, []byte(c.body)); (err == nil) != c.ok {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	for _, text := range []config.Secret{"", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_no base64"} {
		if _, err := callback.NewVerifier(text); err == nil {
			t.Errorf("%q is taken for a secret", text.Reveal())
		}
	}
}
