package blob

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/penstock/penstock/schema/task"
)

// bucket keeps blobs as objects: <prefix><shelf>/<box>/<hash>.
type bucket struct {
	cl     *minio.Client
	name   string
	prefix string // empty, or ends with a slash
}

// Parts of an upload: the most that is buffered of one is part × uploads.
const (
	part    = 16 << 20
	uploads = 2
)

func (b *bucket) put(ctx context.Context, at place, content *meter) (task.Ref, error) {
	body, done, err := rewound(content)
	if err != nil {
		return task.Ref{}, away(err)
	}
	defer done()
	ref := content.ref(at)
	_, err = b.cl.PutObject(ctx, b.name, b.prefix+ref.Key, body, ref.Bytes, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: part, NumThreads: uploads,
	})
	return ref, b.fault(err)
}

// rewound reads the content once, for its hash, and returns it from where it
// began: again from the reader if that can be had, else from a file.
func rewound(content *meter) (body io.Reader, done func(), err error) {
	if again, ok := content.r.(interface {
		io.ReaderAt
		io.Seeker
	}); ok {
		start, err := again.Seek(0, io.SeekCurrent)
		if err == nil {
			_, err = io.Copy(io.Discard, content)
		}
		return io.NewSectionReader(again, start, content.n), func() {}, err
	}
	f, err := os.CreateTemp("", "penstock-blob-*")
	if err != nil {
		return nil, nil, err
	}
	done = func() { _ = f.Close() }
	if err = os.Remove(f.Name()); err == nil { // the open file is enough, and nothing is left behind
		_, err = io.Copy(f, content)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return f, done, nil
}

func (b *bucket) open(ctx context.Context, key string) (io.ReadCloser, error) {
	content, _, _, err := minio.Core{Client: b.cl}.GetObject(ctx, b.name, b.prefix+key, minio.GetObjectOptions{})
	if err != nil {
		return nil, b.fault(err)
	}
	return content, nil
}

// copy is the service's own work: no content comes here. It takes up to 5 GiB.
func (b *bucket) copy(ctx context.Context, ref task.Ref, at place) (task.Ref, error) {
	renewed := ref
	renewed.Key = at.key(ref.SHA256)
	_, err := b.cl.CopyObject(ctx,
		minio.CopyDestOptions{Bucket: b.name, Object: b.prefix + renewed.Key},
		minio.CopySrcOptions{Bucket: b.name, Object: b.prefix + ref.Key})
	return renewed, b.fault(err)
}

func (b *bucket) remove(ctx context.Context, key string) error {
	return b.fault(b.cl.RemoveObject(ctx, b.name, b.prefix+key, minio.RemoveObjectOptions{}))
}

func (b *bucket) shelves(ctx context.Context) ([]shelf, error) {
	var out []shelf
	for o := range b.cl.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix}) {
		if o.Err != nil {
			return nil, b.fault(o.Err)
		}
		if s, ok := parseShelf(strings.TrimSuffix(strings.TrimPrefix(o.Key, b.prefix), "/")); ok {
			out = append(out, s)
		}
	}
	return out, nil
}

func (b *bucket) drop(ctx context.Context, over shelf) (Swept, error) {
	var s Swept
	prefix := b.prefix + over.String() + "/"
	var listing error
	old := func(yield func(minio.ObjectInfo) bool) {
		for o := range b.cl.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
			if listing = o.Err; listing != nil || !yield(o) {
				return
			}
			s.Blobs, s.Bytes = s.Blobs+1, s.Bytes+o.Size
		}
	}
	results, err := b.cl.RemoveObjectsWithIter(ctx, b.name, old, minio.RemoveObjectsOptions{})
	if err != nil {
		return s, b.fault(err)
	}
	for r := range results {
		if r.Err != nil {
			return s, b.fault(fmt.Errorf("remove %s: %w", r.ObjectName, r.Err))
		}
	}
	if listing != nil {
		return s, b.fault(listing)
	}
	return s, b.abandon(ctx, prefix)
}

// abandon ends uploads in parts that a killed process left unfinished: they
// take room and no listing shows them.
func (b *bucket) abandon(ctx context.Context, prefix string) error {
	for u := range b.cl.ListIncompleteUploads(ctx, b.name, prefix, true) {
		if u.Err != nil {
			return b.fault(u.Err)
		}
		if err := b.cl.RemoveIncompleteUpload(ctx, b.name, u.Key); err != nil {
			return b.fault(err)
		}
	}
	return nil
}

func (b *bucket) check(ctx context.Context) error {
	exists, err := b.cl.BucketExists(ctx, b.name)
	if err == nil && !exists {
		err = fmt.Errorf("there is no bucket %s, or this key may not see it", b.name)
	}
	return b.fault(err)
}

// fault tells an object that is not there from everything else, a bucket that
// is not there included.
func (b *bucket) fault(err error) error {
	if err != nil && minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return away(err)
}
