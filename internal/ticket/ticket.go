// Package ticket makes and checks tokens that stand for an API key where a
// browser can set no header: in the query of an EventSource or a WebSocket.
//
// A ticket names a key by its id, what it opens and until when one may connect
// with it, under a MAC of the secret that signs task ids. Nobody stores it, any
// node can check it, and it is worth no more than its key: once that is revoked,
// so is the ticket. It must not be logged.
//
// Text form: "ticket_" and base64url, without padding, over
//
//	1        version, 1
//	1        number of the secret that signed it
//	1        what it opens: 1 a task, 2 a socket
//	8        seconds since 1970 until which one may connect, big endian
//	1, n     length of the key's id, and the id
//	rest     the task's id; empty for a socket
//	16       HMAC-SHA256 over all before, truncated
package ticket

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/schema/task"
)

// How long one may connect with a ticket.
const (
	// TaskLife outlives a stream that is asked to reconnect after its hour: an
	// EventSource opens the same URL again, by itself.
	TaskLife = 2 * time.Hour
	// SocketLife is for a WebSocket that is opened at once; its page asks for
	// another ticket before it connects again.
	SocketLife = time.Minute
)

// Grant is what a ticket says.
type Grant struct {
	KeyID   string    // of the key that it stands for; at most 255 bytes; empty in dev
	Task    task.ID   // the one task that it reads; empty: it opens a socket
	Expires time.Time // nobody connects with it from then on; whole seconds
}

const (
	prefix     = "ticket_"
	version    = 1
	opensTask  = 1
	opensSock  = 2
	headBytes  = 1 + 1 + 1 + 8 + 1
	macBytes   = 16
	maxText    = 512
	maxKeyID   = 255
	macPurpose = "penstock ticket v1\x00"
)

// Signer makes and checks tickets. It is safe for concurrent use.
type Signer struct {
	current task.Secret
	byNo    map[uint8][]byte
}

// NewSigner signs with current and also accepts tickets that the retired secrets
// signed.
func NewSigner(current task.Secret, retired ...task.Secret) *Signer {
	s := &Signer{current: current, byNo: map[uint8][]byte{}}
	for _, r := range append(retired, current) {
		s.byNo[r.Number] = r.Key
	}
	return s
}

// Sign returns the ticket of a grant. The error is about a key whose id is too
// long for one.
func (s *Signer) Sign(g Grant) (string, error) {
	if len(g.KeyID) > maxKeyID {
		return "", fmt.Errorf("sign ticket: the key's id has %d bytes, at most %d are possible", len(g.KeyID), maxKeyID)
	}
	opens := byte(opensTask)
	if g.Task == "" {
		opens = opensSock
	}
	raw := []byte{version, s.current.Number, opens}
	raw = binary.BigEndian.AppendUint64(raw, uint64(g.Expires.Unix()))
	raw = append(raw, byte(len(g.KeyID)))
	raw = append(raw, g.KeyID...)
	raw = append(raw, g.Task...)
	raw = append(raw, mac(s.current.Key, raw)...)
	return prefix + base64.RawURLEncoding.EncodeToString(raw), nil
}

// Read returns what a ticket of ours says, whether or not it is still time to
// connect. Its error wraps auth.ErrUnauthenticated and never holds the ticket.
func (s *Signer) Read(text string) (Grant, error) {
	body, ours := strings.CutPrefix(text, prefix)
	if !ours || len(text) > maxText {
		return Grant{}, errNone()
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(raw) < headBytes+macBytes || raw[0] != version {
		return Grant{}, errNone()
	}
	raw, sum := raw[:len(raw)-macBytes], raw[len(raw)-macBytes:]
	key, known := s.byNo[raw[1]]
	if !known || !hmac.Equal(sum, mac(key, raw)) {
		return Grant{}, errNone()
	}
	keyEnd := headBytes + int(raw[headBytes-1])
	if keyEnd > len(raw) || (raw[2] == opensSock) != (keyEnd == len(raw)) {
		return Grant{}, errNone() // ours, and of a kind that this version does not make
	}
	return Grant{
		KeyID: string(raw[headBytes:keyEnd]), Task: task.ID(raw[keyEnd:]),
		Expires: time.Unix(int64(binary.BigEndian.Uint64(raw[3:])), 0),
	}, nil
}

func errNone() error { return fmt.Errorf("%w: not a ticket of ours", auth.ErrUnauthenticated) }

func mac(key, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(macPurpose)) // a hash's Write never fails
	_, _ = h.Write(body)
	return h.Sum(nil)[:macBytes]
}
