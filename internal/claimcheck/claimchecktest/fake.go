// Package claimchecktest has a blob store in memory that can fail.
package claimchecktest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/schema/task"
)

// Store is a claimcheck.Store. Its zero value is not ready: use New.
type Store struct {
	mu       sync.Mutex
	contents map[string][]byte
	err      error
	calls    int
}

// New returns an empty one.
func New() *Store { return &Store{contents: map[string][]byte{}} }

// Fail makes every call fail, with nil no more.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// Calls is how often it was asked for anything.
func (s *Store) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Put implements claimcheck.Store.
func (s *Store) Put(ctx context.Context, r io.Reader, limit int64) (task.Ref, error) {
	if err := s.enter(ctx); err != nil {
		return task.Ref{}, err
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return task.Ref{}, err
	}
	if int64(len(content)) > limit {
		return task.Ref{}, blob.ErrTooLarge
	}
	return s.Hold(string(content)), nil
}

// Hold keeps a content and returns its reference.
func (s *Store) Hold(content string) task.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256([]byte(content))
	hash := hex.EncodeToString(sum[:])
	s.contents[hash] = []byte(content)
	return task.Ref{Key: "2026-03-14/" + hash[:2] + "/" + hash, SHA256: hash, Bytes: int64(len(content))}
}

// Content is what a reference stands for; "" for nothing.
func (s *Store) Content(ref *task.Ref) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ref == nil {
		return ""
	}
	return string(s.contents[ref.SHA256])
}

// Bytes implements claimcheck.Store.
func (s *Store) Bytes(ctx context.Context, ref task.Ref, _ int64) ([]byte, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok := s.contents[ref.SHA256]
	if !ok {
		return nil, fmt.Errorf("%s: %w", ref.Key, blob.ErrNotFound)
	}
	return content, nil
}

func (s *Store) enter(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.err != nil {
		return s.err
	}
	return context.Cause(ctx)
}
