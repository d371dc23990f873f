package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// keyPrefix begins every key, so that secret scanners can find a leaked one.
const keyPrefix = "penstock_"

// Key is one entry of a keys file. The secret itself is not in it, only its
// SHA-256: 32 random bytes need no slow hash.
type Key struct {
	ID      string    `yaml:"id"`
	Tenant  string    `yaml:"tenant"`
	SHA256  string    `yaml:"sha256"` // hex, of the secret's text after the dot
	Scopes  []string  `yaml:"scopes,flow"`
	Expires time.Time `yaml:"expires,omitempty"` // zero: never
	Revoked bool      `yaml:"revoked,omitempty"`
}

// Keys authenticates API keys of the form penstock_<id>.<secret>.
type Keys struct {
	byID  map[string]Key
	dummy [sha256.Size]byte // compared against for an id nobody has, so that ids cannot be found by time
}

// OpenKeys reads a YAML file `keys: [...]` and reports every fault in it.
func OpenKeys(path string) (*Keys, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	defer f.Close()
	var doc struct {
		Keys []Key `yaml:"keys"`
	}
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("read keys %s: %w", path, err)
	}
	k, err := NewKeys(doc.Keys)
	if err != nil {
		return nil, fmt.Errorf("read keys %s: %w", path, err)
	}
	return k, nil
}

// NewKeys returns an authenticator over the given keys, or every fault in them.
func NewKeys(keys []Key) (*Keys, error) {
	k := &Keys{byID: make(map[string]Key, len(keys))}
	var faults []error
	for i, key := range keys {
		if err := key.validate(); err != nil {
			faults = append(faults, fmt.Errorf("keys[%d]: %w", i, err))
		}
		if _, twice := k.byID[key.ID]; twice {
			faults = append(faults, fmt.Errorf("keys[%d]: id %q is used twice", i, key.ID))
		}
		k.byID[key.ID] = key
	}
	if len(keys) == 0 {
		faults = append(faults, errors.New("no keys: nobody could call"))
	}
	return k, errors.Join(faults...)
}

// Authenticate checks a key's secret, then its life. Why it failed is for the
// log: every failure is the same ErrUnauthenticated to the caller.
func (k *Keys) Authenticate(_ context.Context, bearer string) (Principal, error) {
	if bearer == "" {
		return Principal{}, fmt.Errorf("%w: no bearer token", ErrUnauthenticated)
	}
	id, secret, ok := strings.Cut(strings.TrimPrefix(bearer, keyPrefix), ".")
	if !ok || !strings.HasPrefix(bearer, keyPrefix) {
		return Principal{}, fmt.Errorf("%w: not an API key", ErrUnauthenticated)
	}
	key, known := k.byID[id]
	sum := sha256.Sum256([]byte(secret))
	want := k.dummy
	if known {
		_, _ = hex.Decode(want[:], []byte(key.SHA256)) // validated by NewKeys
	}
	same := subtle.ConstantTimeCompare(sum[:], want[:]) == 1
	if !known || !same {
		return Principal{}, errUnknownKey()
	}
	return key.principal()
}

// Find returns the principal of a key by the key's id, if the key is good.
func (k *Keys) Find(_ context.Context, keyID string) (Principal, error) {
	key, known := k.byID[keyID]
	if !known {
		return Principal{}, errUnknownKey()
	}
	return key.principal()
}

func errUnknownKey() error { return fmt.Errorf("%w: unknown key", ErrUnauthenticated) }

// principal is whom a key stands for, unless its life is over.
func (k Key) principal() (Principal, error) {
	switch {
	case k.Revoked:
		return Principal{}, fmt.Errorf("%w: key %s is revoked", ErrUnauthenticated, k.ID)
	case !k.Expires.IsZero() && !time.Now().Before(k.Expires):
		return Principal{}, fmt.Errorf("%w: key %s has expired", ErrUnauthenticated, k.ID)
	}
	return Principal{Tenant: k.Tenant, KeyID: k.ID, Scopes: slices.Clone(k.Scopes)}, nil
}

// GenerateKey makes a key for a tenant. The text is shown once and stored
// nowhere; the Key goes into the file. A zero expiry never comes.
func GenerateKey(tenant string, scopes []string, expires time.Time) (text string, key Key) {
	secret := base64.RawURLEncoding.EncodeToString(random(32))
	sum := sha256.Sum256([]byte(secret))
	key = Key{ID: hex.EncodeToString(random(6)), Tenant: tenant, SHA256: hex.EncodeToString(sum[:]), Scopes: scopes, Expires: expires}
	return keyPrefix + key.ID + "." + secret, key
}

func (k Key) validate() error {
	var faults []error
	if k.ID == "" || strings.ContainsAny(k.ID, ". ") {
		faults = append(faults, fmt.Errorf("id %q: want a name without dots and spaces", k.ID))
	}
	if k.Tenant == "" {
		faults = append(faults, errors.New("tenant is missing"))
	}
	if sum, err := hex.DecodeString(k.SHA256); err != nil || len(sum) != sha256.Size {
		faults = append(faults, errors.New("sha256: want 64 hex digits"))
	}
	if len(k.Scopes) == 0 {
		faults = append(faults, errors.New("scopes are missing"))
	}
	for _, s := range k.Scopes {
		if !slices.Contains(Scopes(), s) {
			faults = append(faults, fmt.Errorf("unknown scope %q: want one of %s", s, strings.Join(Scopes(), ", ")))
		}
	}
	return errors.Join(faults...)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the process instead
	return b
}
