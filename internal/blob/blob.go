// Package blob keeps large contents outside of the records: a write-once store,
// addressed by content, in a directory or in an S3 bucket.
//
// Guarantees. A Put that returned is durable as the technology understands it:
// synced to disk, or acknowledged by the service. What Open returns is checked
// against hash and size, so damage is told and never passed on. Contents are
// never held in memory as a whole. Several processes may use one store.
//
// Age. A blob is filed under the UTC day of its Put and lives until Sweep takes
// that whole day away. Putting the same content again files it under the present
// day and returns a new reference, so a reference's life always begins when it
// is given out, and no Put can race with the Sweep of an older copy. Who must
// keep a reference for longer asks Renew for a younger one.
//
// Some contents have an owner who knows how long they live: Keep files them under
// the day on which that ends, each by a name of its own, and Remove may take one
// away before. Nothing else ever deletes by name.
package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/schema/task"
)

// Errors that callers branch on.
var (
	// ErrNotFound: the store answers, and has no such blob.
	ErrNotFound = errors.New("no such blob")
	// ErrTooLarge: the content is over the limit given to Put; nothing is kept.
	ErrTooLarge = errors.New("content is over the limit")
	// ErrUnavailable: the store cannot be reached, is full, or is not there.
	ErrUnavailable = errors.New("blob store is unavailable")
	// ErrCorrupt: what is stored is not what was put.
	ErrCorrupt = errors.New("blob does not match its reference")
	// ErrRef: the reference was not made by a store.
	ErrRef = errors.New("not a blob reference")
)

// keeper is one technology. Keys are made and checked by a place.
type keeper interface {
	// put keeps what the meter reads and returns its reference at that place.
	put(ctx context.Context, at place, content *meter) (task.Ref, error)
	open(ctx context.Context, key string) (io.ReadCloser, error)
	// copy keeps the blob at another place as well.
	copy(ctx context.Context, ref task.Ref, at place) (task.Ref, error)
	// remove deletes one blob; that it is not there is ErrNotFound.
	remove(ctx context.Context, key string) error
	shelves(ctx context.Context) ([]shelf, error)
	// drop deletes a shelf; another process may be doing the same.
	drop(ctx context.Context, s shelf) (Swept, error)
	// check reports whether blobs can be put now.
	check(ctx context.Context) error
}

// Params are the developer's choices.
type Params struct {
	Service  string // in the names of metrics
	Registry prometheus.Registerer
}

// Store keeps blobs. It is safe for concurrent use.
type Store struct {
	k keeper
	m *metrics
}

// Put stores everything r has, at most limit bytes, and returns the reference.
// An error of r itself is returned as it is. A reader that can seek is read
// twice instead of being buffered on disk, where the technology needs the hash
// in advance.
func (s *Store) Put(ctx context.Context, r io.Reader, limit int64) (task.Ref, error) {
	return s.put(ctx, place{shelf: putOn(time.Now())}, r, limit)
}

// Keep stores everything r has as Put does, until the end of the UTC day that
// holds until. Name is that of its owner's record: 1 to 64 of a-z, 0-9, '-' and
// '_', never given to another content, so that two owners of one content share
// nothing and either may Remove theirs. It is in the key, so it is no secret.
func (s *Store) Keep(ctx context.Context, name string, until time.Time, r io.Reader, limit int64) (task.Ref, error) {
	if !isName(name) {
		return task.Ref{}, fmt.Errorf("%w: name %.128q", ErrRef, name)
	}
	return s.put(ctx, place{keptUntil(until), name}, r, limit)
}

// Remove deletes what Keep stored. Once it returned nil the content is gone, also
// if it was before. A reference of Put is refused: others may hold the same.
func (s *Store) Remove(ctx context.Context, ref task.Ref) error {
	at, err := placeOf(ref)
	if err != nil {
		return err
	}
	if !at.shelf.kept {
		return fmt.Errorf("%w: key %.128q is not one that was kept", ErrRef, ref.Key)
	}
	err = s.k.remove(ctx, ref.Key)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	s.m.did(opRemove, ref.Bytes, err)
	if err != nil {
		return fmt.Errorf("remove blob %s: %w", ref.Key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, at place, r io.Reader, limit int64) (task.Ref, error) {
	content := newMeter(ctx, r, limit)
	ref, err := s.k.put(ctx, at, content)
	switch {
	case content.err != nil: // also ErrTooLarge: the reader's end, not the store's
		ref, err = task.Ref{}, fmt.Errorf("read content of blob: %w", content.err)
	case err != nil:
		ref, err = task.Ref{}, fmt.Errorf("put blob: %w", err)
	}
	s.m.did(opPut, ref.Bytes, err)
	return ref, err
}

// Open returns the content behind a reference. Its Read answers ErrCorrupt
// instead of io.EOF if hash or size differ from the reference's: nothing that
// was read counts before io.EOF. A store that breaks off is ErrUnavailable.
func (s *Store) Open(ctx context.Context, ref task.Ref) (io.ReadCloser, error) {
	if _, err := placeOf(ref); err != nil {
		return nil, err
	}
	content, err := s.k.open(ctx, ref.Key)
	if err != nil {
		s.m.did(opOpen, 0, err)
		return nil, fmt.Errorf("open blob %s: %w", ref.Key, err)
	}
	return newVerifier(content, ref, func(err error) { s.m.did(opOpen, ref.Bytes, err) }), nil
}

// Bytes reads a blob of at most limit bytes into memory and checks it.
func (s *Store) Bytes(ctx context.Context, ref task.Ref, limit int64) ([]byte, error) {
	if ref.Bytes > limit {
		return nil, fmt.Errorf("read blob %s of %d bytes: %w of %d", ref.Key, ref.Bytes, ErrTooLarge, limit)
	}
	content, err := s.Open(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	var out bytes.Buffer
	out.Grow(int(ref.Bytes) + bytes.MinRead)
	if _, err := out.ReadFrom(content); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", ref.Key, err)
	}
	return out.Bytes(), nil
}

// Renew returns a reference to the same content whose life begins now. The old
// one stays good for the rest of its own.
func (s *Store) Renew(ctx context.Context, ref task.Ref) (task.Ref, error) {
	at, err := placeOf(ref)
	if err != nil {
		return task.Ref{}, err
	}
	today := putOn(time.Now())
	if at.shelf == today {
		return ref, nil
	}
	renewed, err := s.k.copy(ctx, ref, place{shelf: today})
	s.m.did(opRenew, ref.Bytes, err)
	if err != nil {
		return task.Ref{}, fmt.Errorf("renew blob %s: %w", ref.Key, err)
	}
	return renewed, nil
}

// Check reports whether blobs can be put now.
func (s *Store) Check(ctx context.Context) error { return s.k.check(ctx) }
