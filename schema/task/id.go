package task

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
	"time"
)

// ID names a task for life: on poll, SSE, WebSocket, webhook and batch file.
//
// Text form: "task_" and 48 characters of lower-case base32hex over 30 bytes:
//
//	6  milliseconds since 1970, big endian (so ids sort by time)
//	1  number of the secret that signed it (for rotation)
//	16 random, or derived from tenant, idempotency key and body hash
//	7  HMAC-SHA256 over tenant and the 23 bytes before, truncated
//
// The MAC lets any node tell "we issued this, for this tenant" with no store:
// an accepted id is never answered 404, a foreign or invented one always is.
type ID string

const (
	idPrefix   = "task_"
	idBytes    = 30
	idMACBytes = 7
	idBody     = idBytes - idMACBytes
	// IDLength is the length of an id in characters.
	IDLength = len(idPrefix) + idBytes*8/5
	// Bucket is how long one idempotency key maps to one id.
	Bucket = 24 * time.Hour
)

// ErrID is returned for text that is not an id.
var ErrID = errors.New("not a task id")

// ErrForeignID is returned for an id that was not issued to the tenant, or
// not by us.
var ErrForeignID = errors.New("task id not issued to this tenant")

func idEncoding() *base32.Encoding {
	return base32.HexEncoding.WithPadding(base32.NoPadding)
}

// ParseID checks the form of an id; only Minter.Check proves who issued it.
func ParseID(s string) (ID, error) {
	if _, err := ID(s).bytes(); err != nil {
		return "", err
	}
	return ID(s), nil
}

func (id ID) bytes() ([]byte, error) {
	text, ok := strings.CutPrefix(string(id), idPrefix)
	if !ok || len(id) != IDLength || text != strings.ToLower(text) {
		return nil, ErrID
	}
	raw, err := idEncoding().DecodeString(strings.ToUpper(text))
	if err != nil || len(raw) != idBytes {
		return nil, ErrID
	}
	return raw, nil
}

// Time returns the time part: when the id was made, or for a keyed id the
// start of its 24 h bucket. Zero for text that is not an id.
func (id ID) Time() time.Time {
	raw, err := id.bytes()
	if err != nil {
		return time.Time{}
	}
	var ms [8]byte
	copy(ms[2:], raw[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:]))).UTC()
}

// Keyed reports whether the id may have been made of an idempotency key, so
// that others could be given it again: its time is the start of a bucket.
func (id ID) Keyed() bool { return id.Time().UnixMilli()%Bucket.Milliseconds() == 0 }

// Secret signs ids. Number is written into them, so that a rotated secret
// still checks the ids it signed.
type Secret struct {
	Number uint8
	Key    []byte
}

// Minter makes and checks ids. It is safe for concurrent use.
type Minter struct {
	current Secret
	byNo    map[uint8]*macs
}

// NewMinter signs with current and also accepts ids signed by the retired
// secrets. Every key must have at least 16 bytes.
func NewMinter(current Secret, retired ...Secret) (*Minter, error) {
	m := &Minter{current: current, byNo: map[uint8]*macs{}}
	for _, s := range append([]Secret{current}, retired...) {
		if len(s.Key) < 16 {
			return nil, fmt.Errorf("id secret %d has %d bytes, needs at least 16", s.Number, len(s.Key))
		}
		if _, twice := m.byNo[s.Number]; twice {
			return nil, fmt.Errorf("id secret number %d is used twice", s.Number)
		}
		m.byNo[s.Number] = newMACs(s.Key)
	}
	return m, nil
}

// New returns a fresh id for a tenant.
func (m *Minter) New(tenant string, now time.Time) ID {
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // never fails since Go 1.24: the runtime aborts instead
	return m.mint(tenant, now, bits)
}

// Keyed returns the one id of (tenant, idempotency key, body) in the bucket
// that holds now, the same on every node and without a store.
func (m *Minter) Keyed(tenant, key string, bodyHash [32]byte, now time.Time) ID {
	text := make([]byte, 0, 256)
	text = appendField(text, "penstock idempotency key v1")
	text = appendField(text, tenant)
	text = appendField(text, key)
	sum := m.byNo[m.current.Number].sum(append(text, bodyHash[:]...))
	var bits [16]byte
	copy(bits[:], sum[:])
	return m.mint(tenant, now.Truncate(Bucket), bits)
}

// Check returns ErrID for text that is no id, ErrForeignID for one that this
// tenant was never given, and nil otherwise.
func (m *Minter) Check(id ID, tenant string) error {
	raw, err := id.bytes()
	if err != nil {
		return err
	}
	keyed, ok := m.byNo[raw[6]]
	if !ok {
		return ErrForeignID
	}
	if sum := idMAC(keyed, tenant, raw[:idBody]); subtle.ConstantTimeCompare(raw[idBody:], sum[:idMACBytes]) != 1 {
		return ErrForeignID
	}
	return nil
}

func (m *Minter) mint(tenant string, at time.Time, bits [16]byte) ID {
	raw := make([]byte, 0, idBytes)
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli()))
	raw = append(raw, ms[2:]...)
	raw = append(raw, m.current.Number)
	raw = append(raw, bits[:]...)
	sum := idMAC(m.byNo[m.current.Number], tenant, raw)
	raw = append(raw, sum[:idMACBytes]...)
	return ID(idPrefix + strings.ToLower(idEncoding().EncodeToString(raw)))
}

func idMAC(keyed *macs, tenant string, body []byte) [sha256.Size]byte {
	text := make([]byte, 0, 128)
	text = appendField(text, "penstock task id v1")
	text = appendField(text, tenant)
	return keyed.sum(append(text, body...))
}

// appendField appends a length-prefixed string, so that no two lists of fields
// hash alike.
func appendField(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

// macs are the HMAC-SHA256 of one key. It keeps what was keyed: every request
// checks an id, and to key a hash costs more than to hash one.
type macs struct{ pool sync.Pool }

func newMACs(key []byte) *macs {
	return &macs{sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

func (m *macs) sum(text []byte) (out [sha256.Size]byte) {
	h, _ := m.pool.Get().(hash.Hash)
	defer m.pool.Put(h)
	h.Reset()
	_, _ = h.Write(text) // never fails
	h.Sum(out[:0])
	return out
}
