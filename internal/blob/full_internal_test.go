package blob

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A full disk is the store's fault, not the reader's.
func TestAFullDiskIsUnavailable(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	content := newMeter(t.Context(), strings.NewReader("payload"), 100)
	err = away(fill(full, content))
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) || content.err != nil {
		t.Errorf("got %v, and of the reader %v, want ErrUnavailable because of ENOSPC", err, content.err)
	}
}
