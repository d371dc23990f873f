package callback

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/task"
)

// secretPrefix marks a secret of Standard Webhooks.
const secretPrefix = "whsec_"

// Keys sign for every tenant. Each tenant's secret is derived from the secrets
// that sign task ids, so there is nothing to store, any node can sign, and
// rotating those rotates these. It is safe for concurrent use.
type Keys struct {
	secrets [][]byte // newest first
}

// NewKeys returns keys that sign with the current secret and, as long as they
// are kept, with the retired ones too: a receiver that knows one of them
// verifies either way.
func NewKeys(current task.Secret, retired ...task.Secret) *Keys {
	k := &Keys{secrets: [][]byte{current.Key}}
	for _, s := range retired {
		k.secrets = append(k.secrets, s.Key)
	}
	return k
}

// Secret is what a tenant verifies our calls with.
func (k *Keys) Secret(tenant string) config.Secret {
	return config.Secret(secretPrefix + base64.StdEncoding.EncodeToString(derive(k.secrets[0], tenant)))
}

// Sign returns the headers of a call: what it is called, when it was made, and a
// signature for each secret.
func (k *Keys) Sign(tenant, id string, at time.Time, body []byte) (http.Header, error) {
	signatures := make([]string, len(k.secrets))
	for i, secret := range k.secrets {
		hook, err := standardwebhooks.NewWebhookRaw(derive(secret, tenant))
		if err == nil {
			signatures[i], err = hook.Sign(id, at, body)
		}
		if err != nil {
			return nil, fmt.Errorf("sign webhook: %w", err)
		}
	}
	h := http.Header{}
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return h, nil
}

// ErrSecret is returned for text that is no secret.
var ErrSecret = errors.New("not a webhook secret: it begins with " + secretPrefix)

// Verifier checks calls as their receiver does.
type Verifier struct{ hook *standardwebhooks.Webhook }

// NewVerifier returns what checks calls that were signed for the owner of a
// secret.
func NewVerifier(secret config.Secret) (*Verifier, error) {
	if !strings.HasPrefix(secret.Reveal(), secretPrefix) {
		return nil, ErrSecret
	}
	hook, err := standardwebhooks.NewWebhook(secret.Reveal())
	if err != nil { // its text may repeat the secret
		return nil, ErrSecret
	}
	return &Verifier{hook}, nil
}

// Verify returns why a call is not to be believed: its signature, or that it
// was made more than five minutes ago or hence.
func (v *Verifier) Verify(h http.Header, body []byte) error {
	if err := v.hook.Verify(body, h); err != nil {
		return fmt.Errorf("verify webhook: %w", err)
	}
	return nil
}

// derive makes a tenant's secret. The label keeps it apart from all else that
// is made of the same key.
func derive(secret []byte, tenant string) []byte {
	mac := hmac.New(sha256.New, secret)
	for _, field := range [...]string{"penstock webhook secret v1", tenant} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(field)))
		_, _ = mac.Write(n[:]) // a hash's Write never fails
		_, _ = mac.Write([]byte(field))
	}
	return mac.Sum(nil)
}
