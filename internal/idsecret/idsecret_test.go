package idsecret_test

import (
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/idsecret"
)

func TestTheDevelopmentSecretStaysOnLoopback(t *testing.T) {
	t.Parallel()
	for listen, ok := range map[string]bool{"127.0.0.1:8080": true, "[::1]:0": true, "localhost:1": true, ":8080": false, "0.0.0.0:8080": false, "10.0.0.1:1": false} {
		if _, err := idsecret.DefaultConfig().Minter(listen); (err == nil) != ok {
			t.Errorf("%s: %v", listen, err)
		}
		own := idsecret.Config{ID: "a secret of our own"}
		if _, err := own.Minter(listen); err != nil {
			t.Errorf("%s: %v", listen, err)
		}
	}
}

func TestARotatedSecretStillChecksItsIDs(t *testing.T) {
	t.Parallel()
	before, err := idsecret.Config{ID: "the secret before", Number: 1}.Minter(":1")
	if err != nil {
		t.Fatal(err)
	}
	id := before.New("acme", time.Now())
	after, err := idsecret.Config{ID: "the secret of today", Number: 2, Retired: []config.Secret{"1:the secret before"}}.Minter(":1")
	if err != nil {
		t.Fatal(err)
	}
	if err := after.Check(id, "acme"); err != nil {
		t.Error(err)
	}
}

func TestFaultsNameTheSettingAndHideTheSecret(t *testing.T) {
	t.Parallel()
	const canary = "CANARY-short"
	for _, c := range []idsecret.Config{
		{ID: canary},
		{ID: "long enough as it is", Retired: []config.Secret{canary}},
		{ID: "long enough as it is", Retired: []config.Secret{"300:" + canary}},
		{ID: "long enough as it is", Retired: []config.Secret{"0:" + canary + canary}},
	} {
		if _, err := c.Minter(":1"); err == nil || strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	}
}

func TestRotatedSecretsStillSignWebhooks(t *testing.T) {
	t.Parallel()
	before, err := idsecret.Config{ID: "the secret before", Number: 1}.WebhookKeys()
	if err != nil {
		t.Fatal(err)
	}
	after, err := idsecret.Config{ID: "the secret after it", Number: 2, Retired: []config.Secret{"1:the secret before"}}.WebhookKeys()
	if err != nil {
		t.Fatal(err)
	}
	if before.Secret("acme") == after.Secret("acme") {
		t.Error("the secret did not rotate")
	}
	h, err := after.Sign("acme", "evt_1", time.Now(), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := callback.NewVerifier(before.Secret("acme"))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(h, []byte("{}")); err != nil {
		t.Errorf("a receiver that has not heard of the rotation: %v", err)
	}
}
