package task

import (
	"crypto/sha256"
	"encoding/hex"
)

const (
	sessionPrefix = "session."
	maxSessionKey = 256 // bytes, as an ordering key may have
)

// SessionKey is the ordering key of the tasks of a session that name none: the
// session's id behind a prefix, or its hash where that would be too long. Like
// any ordering key it counts within its tenant.
func SessionKey(session string) string {
	if len(sessionPrefix)+len(session) <= maxSessionKey {
		return sessionPrefix + session
	}
	sum := sha256.Sum256([]byte(session))
	return sessionPrefix + hex.EncodeToString(sum[:])
}
