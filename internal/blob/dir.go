package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// dir keeps blobs as files: root/<shelf>/<box>/<hash>. A file appears under its
// name only when it is whole and synced.
type dir struct{ root string }

const (
	// marker is a file in the root of every directory that blobs were put in.
	// Where it is missing the volume is not mounted, and then "no such file"
	// says nothing about the blob.
	marker = ".penstock-blobs"
	// scratch is where files grow. It must be on the same volume.
	scratch = "tmp"

	// Services of one group share the directory, under different users perhaps.
	dirMode  = 0o770
	fileMode = 0o640
)

func (d *dir) put(_ context.Context, at place, content *meter) (ref task.Ref, err error) {
	if err := d.prepare(); err != nil {
		return ref, away(err)
	}
	f, err := os.CreateTemp(filepath.Join(d.root, scratch), "put-*")
	if err != nil {
		return ref, away(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // what is left here is swept with its age
		}
	}()
	if err := fill(f, content); err != nil {
		return ref, away(err)
	}
	ref = content.ref(at)
	return ref, away(d.place(f.Name(), ref.Key))
}

// fill writes and syncs a file and closes it.
func fill(f *os.File, content io.Reader) error {
	_, err := io.Copy(f, content)
	if err == nil {
		err = f.Chmod(fileMode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// prepare makes the directory one of blobs.
func (d *dir) prepare() error {
	if err := os.MkdirAll(filepath.Join(d.root, scratch), dirMode); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(d.root, marker), os.O_CREATE|os.O_RDONLY, fileMode)
	if err != nil {
		return err
	}
	return f.Close()
}

// place gives a file its name and syncs the way to it. All of the way: whoever
// made a folder of it may not have synced it yet. A file of that name has the
// same content, or is damaged: it is replaced.
func (d *dir) place(file, key string) error {
	path := filepath.Join(d.root, filepath.FromSlash(key))
	shard := filepath.Dir(path)
	if err := os.MkdirAll(shard, dirMode); err != nil {
		return err
	}
	if err := os.Rename(file, path); err != nil {
		return err
	}
	for _, folder := range []string{shard, filepath.Dir(shard), d.root} {
		if err := syncDir(folder); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *dir) open(_ context.Context, key string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(d.root, filepath.FromSlash(key)))
	if err != nil {
		return nil, d.missing(err)
	}
	return f, nil
}

// missing tells a file that is not there from a directory that is not.
func (d *dir) missing(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return away(err)
	}
	if _, noRoot := os.Stat(filepath.Join(d.root, marker)); noRoot != nil {
		return away(fmt.Errorf("no blobs were ever put in %s; is the volume mounted?: %w", d.root, noRoot))
	}
	return ErrNotFound
}

// copy checks what it copies: a damaged blob does not live on.
func (d *dir) copy(ctx context.Context, ref task.Ref, at place) (task.Ref, error) {
	content, err := d.open(ctx, ref.Key)
	if err != nil {
		return task.Ref{}, err
	}
	defer content.Close()
	checked := newMeter(ctx, newVerifier(content, ref, func(error) {}), ref.Bytes)
	renewed, err := d.put(ctx, at, checked)
	if checked.err != nil {
		return task.Ref{}, checked.err
	}
	return renewed, err
}

// remove syncs too: who was told that it is gone must not find it again.
func (d *dir) remove(_ context.Context, key string) error {
	path := filepath.Join(d.root, filepath.FromSlash(key))
	if err := os.Remove(path); err != nil {
		return d.missing(err)
	}
	return away(syncDir(filepath.Dir(path)))
}

func (d *dir) shelves(context.Context) ([]shelf, error) {
	entries, err := os.ReadDir(d.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nothing was put yet
	}
	if err != nil {
		return nil, away(err)
	}
	var out []shelf
	for _, e := range entries {
		if s, ok := parseShelf(e.Name()); ok && e.IsDir() {
			out = append(out, s)
		}
	}
	return out, d.tidy()
}

// leftover is the age from which a file in scratch belongs to nobody: no Put
// takes so long.
const leftover = 24 * time.Hour

// tidy removes what killed processes left.
func (d *dir) tidy() error {
	entries, err := os.ReadDir(filepath.Join(d.root, scratch))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return away(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < leftover {
			continue // gone, or young
		}
		if err := os.Remove(filepath.Join(d.root, scratch, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return away(err)
		}
	}
	return nil
}

func (d *dir) drop(ctx context.Context, old shelf) (Swept, error) {
	var s Swept
	root := filepath.Join(d.root, old.String())
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another sweeper was faster
		}
		if err != nil || e.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		info, err := e.Info()
		if err == nil {
			err = os.Remove(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			s.Blobs, s.Bytes = s.Blobs+1, s.Bytes+info.Size()
		}
		return err
	})
	if err == nil {
		err = os.RemoveAll(root)
	}
	return s, away(err)
}

func (d *dir) check(context.Context) error {
	if err := d.prepare(); err != nil {
		return away(err)
	}
	f, err := os.CreateTemp(filepath.Join(d.root, scratch), "check-*")
	if err != nil {
		return away(err)
	}
	return away(errors.Join(f.Close(), os.Remove(f.Name())))
}

// away marks an error of the technology. Nil stays nil.
func away(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
