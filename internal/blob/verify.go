package blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/penstock/penstock/schema/task"
)

// verifier checks a content against its reference while it is read.
type verifier struct {
	content io.ReadCloser
	meter   *meter
	ref     task.Ref
	ended   func(error) // told once how the reading ended
	end     error
}

// newVerifier never reads more than one byte beyond what the reference says.
func newVerifier(content io.ReadCloser, ref task.Ref, ended func(error)) *verifier {
	limited := io.LimitReader(content, ref.Bytes+1)
	return &verifier{content: content, meter: newMeter(context.Background(), limited, ref.Bytes), ref: ref, ended: ended}
}

// Read implements io.Reader; see Store.Open for its end.
func (v *verifier) Read(p []byte) (int, error) {
	if v.end != nil {
		return 0, v.end
	}
	n, err := v.meter.Read(p)
	if err == nil {
		return n, nil
	}
	v.end = v.verdict(err)
	if v.end == io.EOF { //nolint:errorlint // made here
		v.ended(nil)
	} else {
		v.ended(v.end)
	}
	return n, v.end
}

// verdict says what the end of the stored bytes means.
func (v *verifier) verdict(err error) error {
	switch {
	case errors.Is(err, ErrTooLarge):
		return fmt.Errorf("%w: more than %d bytes", ErrCorrupt, v.ref.Bytes)
	case !errors.Is(err, io.EOF): // also a connection that broke, io.ErrUnexpectedEOF
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case v.meter.n != v.ref.Bytes:
		return fmt.Errorf("%w: %d of %d bytes", ErrCorrupt, v.meter.n, v.ref.Bytes)
	case v.meter.sum() != v.ref.SHA256:
		return fmt.Errorf("%w: another hash", ErrCorrupt)
	}
	return io.EOF
}

// Close implements io.Closer. A content that is closed before its end was not
// checked.
func (v *verifier) Close() error {
	if v.end == nil {
		v.end = io.ErrClosedPipe
	}
	return v.content.Close()
}
