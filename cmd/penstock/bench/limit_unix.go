//go:build unix

package bench

import (
	"fmt"
	"syscall"
)

// spareFiles is what a process opens besides its streams, with room.
const spareFiles = 256

// enoughFiles says what to set if neither this process nor its children may open
// as many files as there are streams. Go itself raises the soft limit to the
// hard one.
func enoughFiles(streams int) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if need := uint64(streams + spareFiles); uint64(l.Max) < need {
		return fmt.Errorf("%d streams need a limit of %d open files, and the hard one is %d: raise it (ulimit -Hn %d as root), or ask for fewer with --streams",
			streams, need, l.Max, need)
	}
	return nil
}
