package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Upload is a content that is stored and not yet a file.
type Upload struct {
	id      string
	at      time.Time
	content task.Ref
}

// Receive stores a content of at most Params.MaxFile bytes while it comes in. An
// error of r is returned as it is.
func (d *Desk) Receive(ctx context.Context, r io.Reader) (Upload, error) {
	if err := d.open(ctx); err != nil {
		return Upload{}, err
	}
	select {
	case d.uploads <- struct{}{}:
		defer func() { <-d.uploads }()
	default:
		return Upload{}, unavailable("too many files are coming in at once; send this one again in a moment", nil)
	}
	now := d.p.Publisher.BrokerNow().UTC()
	u := Upload{id: joblog.NewID(filePrefix, now), at: now}
	var err error
	u.content, err = d.p.Blobs.Keep(ctx, u.id, now.Add(d.p.FileLife), r, d.p.MaxFile)
	switch {
	case errors.Is(err, blob.ErrTooLarge):
		return Upload{}, tooLarge("file", "has more than %d bytes: split it", d.p.MaxFile)
	case errors.Is(err, blob.ErrUnavailable):
		return Upload{}, unavailable("the file cannot be stored just now; send it again in a moment", err)
	}
	return u, err
}

// Drop removes a content that becomes no file. What cannot be removed now goes
// with its day.
func (d *Desk) Drop(ctx context.Context, u Upload) {
	if err := d.p.Blobs.Remove(context.WithoutCancel(ctx), u.content); err != nil {
		d.log.Debug("content of a refused upload not removed", "err", err)
	}
}

// About is what a client says of a file.
type About struct {
	Name    string
	Purpose Purpose
	Life    time.Duration // 0: as long as files live here
}

// File makes a stored content a tenant's file. It is durable once this returned
// nil. A content that cannot become one is dropped.
func (d *Desk) File(ctx context.Context, tenant string, u Upload, a About) (File, error) {
	if err := d.checkAbout(ctx, tenant, &a); err != nil {
		d.Drop(ctx, u)
		return File{}, err
	}
	f := File{ID: u.id, Tenant: tenant, Name: a.Name, Purpose: a.Purpose, Content: u.content, CreatedAt: u.at, ExpiresAt: u.at.Add(a.Life)}
	if err := d.settle(ctx, entry{Type: entryFile, ID: f.ID, File: &f}); err != nil {
		return File{}, err // the entry may be there all the same, and then the content must be
	}
	d.metrics.uploaded.Add(float64(u.content.Bytes))
	return f, nil
}

func (d *Desk) checkAbout(ctx context.Context, tenant string, a *About) error {
	if err := d.open(ctx); err != nil {
		return err
	}
	switch {
	case !slices.Contains(Uploads(), a.Purpose):
		return invalid("purpose", fmt.Sprintf("must be one of %v", Uploads()))
	case a.Name == "" || len(a.Name) > maxFileName || !utf8.ValidString(a.Name) || strings.ContainsFunc(a.Name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return invalid("file", fmt.Sprintf("needs a file name of 1 to %d bytes without control characters", maxFileName))
	}
	life, err := d.life("expires_after", a.Life)
	if err != nil {
		return err
	}
	a.Life = life
	if files, _ := d.ledger.held(tenant); files >= maxFiles {
		return invalid("file", fmt.Sprintf("there are %d files already; delete some", maxFiles))
	}
	return nil
}

// life checks how long a file is to live; 0 is the longest.
func (d *Desk) life(path string, asked time.Duration) (time.Duration, error) {
	switch {
	case asked == 0:
		return d.p.FileLife, nil
	case asked < leastLife || asked > d.p.FileLife:
		return 0, invalid(path+".seconds", fmt.Sprintf("must be %d to %d on this server", int(leastLife.Seconds()), int(d.p.FileLife.Seconds())))
	}
	return asked, nil
}

// FindFile returns a tenant's file. Errors: NotFound, Unavailable.
func (d *Desk) FindFile(ctx context.Context, tenant, id string) (File, error) {
	return find(ctx, d, filePrefix, id, func() (File, bool) { return d.ledger.file(tenant, id, d.p.Publisher.BrokerNow()) })
}

// Files returns a page of a tenant's files; an empty purpose is any.
func (d *Desk) Files(ctx context.Context, tenant string, purpose Purpose, p Page) (files []File, more bool, err error) {
	if err := d.open(ctx); err != nil {
		return nil, false, err
	}
	files, more = d.ledger.listFiles(tenant, purpose, p, d.p.Publisher.BrokerNow())
	return files, more, nil
}

// Content opens what a file holds; see blob.Store.Open for what its end means.
func (d *Desk) Content(ctx context.Context, tenant, id string) (File, io.ReadCloser, error) {
	f, err := d.FindFile(ctx, tenant, id)
	if err != nil {
		return File{}, nil, err
	}
	content, err := d.p.Blobs.Open(ctx, f.Content)
	switch {
	case errors.Is(err, blob.ErrUnavailable):
		err = unavailable("the file cannot be read just now; ask again in a moment", err)
	case err != nil:
		err = &fault.Error{Code: fault.BlobLost, Message: "the content of this file is no longer in the blob store", Err: err}
	}
	return f, content, err
}

// ErrInUse is returned by DeleteFile for the input of a batch that has not ended.
type ErrInUse struct{ Batch string }

// Error says what to do about it.
func (e ErrInUse) Error() string {
	return "the file is the input of " + e.Batch + ", which has not ended: cancel that first"
}

// DeleteFile ends a tenant's file, and its content with it.
func (d *Desk) DeleteFile(ctx context.Context, tenant, id string) error {
	f, err := d.FindFile(ctx, tenant, id)
	if err != nil {
		return err
	}
	if batch, ok := d.ledger.reads(id); ok {
		return ErrInUse{batch}
	}
	if err := d.settle(ctx, entry{Type: entryDeleted, ID: id}); err != nil {
		return err
	}
	d.Drop(ctx, Upload{content: f.Content})
	return nil
}

func invalid(path, reason string) error {
	return &validate.Error{Code: fault.Malformed, Path: path, Offset: -1, Reason: reason}
}

func tooLarge(path, format string, args ...any) error {
	return &validate.Error{Code: fault.TooLarge, Path: path, Offset: -1, Reason: fmt.Sprintf(format, args...)}
}
