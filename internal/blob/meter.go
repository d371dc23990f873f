package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"

	"github.com/penstock/penstock/schema/task"
)

// meter reads a content and learns its hash and size. It stops with ErrTooLarge
// beyond the limit, and when ctx ends.
type meter struct {
	ctx   context.Context
	r     io.Reader
	limit int64
	n     int64
	hash  hash.Hash
	err   error // of the reader, not of whoever stores what was read
}

func newMeter(ctx context.Context, r io.Reader, limit int64) *meter {
	return &meter{ctx: ctx, r: r, limit: limit, hash: sha256.New()}
}

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, m.fail(context.Cause(m.ctx))
	}
	n, err := m.r.Read(p)
	m.n += int64(n)
	_, _ = m.hash.Write(p[:n]) // a hash's Write never fails
	switch {
	case m.n > m.limit:
		return n, m.fail(ErrTooLarge)
	case err != nil && err != io.EOF: //nolint:errorlint // readers return io.EOF itself
		return n, m.fail(err)
	}
	return n, err
}

func (m *meter) fail(err error) error {
	m.err = err
	return err
}

func (m *meter) sum() string { return hex.EncodeToString(m.hash.Sum(nil)) }

// ref is the reference of what was read, at a place.
func (m *meter) ref(at place) task.Ref {
	sum := m.sum()
	return task.Ref{Key: at.key(sum), SHA256: sum, Bytes: m.n}
}
