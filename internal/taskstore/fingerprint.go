package taskstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
)

//go:embed lua/fingerprint.lua
var fingerprintSource string

var fingerprintScript = redisclient.NewScript(fingerprintSource)

// fingerprintKeep covers the bucket of a keyed id and the one before.
const fingerprintKeep = 2 * task.Bucket

// Fingerprint stores the body hash and id that an idempotency key came with,
// unless the key is known: then it returns what came first. Empty results mean
// that this call was the first. The memory lasts 48 h and may be lost.
func (s *Store) Fingerprint(ctx context.Context, tenant, key, bodyHash string, id task.ID) (firstHash string, firstID task.ID, err error) {
	was, err := fingerprintScript.Run(ctx, s.rdb, redisclient.Call{
		Keys: []string{rediskey.Idempotency(tenant, key)},
		Args: []any{bodyHash + " " + string(id), seconds(fingerprintKeep)},
	}).Text()
	if err != nil {
		return "", "", fmt.Errorf("remember idempotency key: %w", err)
	}
	firstHash, firstID = cutFingerprint(was)
	return firstHash, firstID, nil
}

// Lookup returns the body hash and id that an idempotency key came with first;
// both are empty for a key that is not known.
func (s *Store) Lookup(ctx context.Context, tenant, key string) (bodyHash string, id task.ID, err error) {
	was, err := s.rdb.Get(ctx, rediskey.Idempotency(tenant, key)).Result()
	if errors.Is(err, redis.Nil) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("look up idempotency key: %w", err)
	}
	bodyHash, id = cutFingerprint(was)
	return bodyHash, id, nil
}

func cutFingerprint(s string) (string, task.ID) {
	hash, id, _ := strings.Cut(s, " ")
	return hash, task.ID(id)
}
