//go:build faults

package faults_test

import (
	"fmt"
	"syscall"
)

// mountSmall puts a file system of some bytes on a directory. It needs root.
func mountSmall(dir string, bytes int) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
}

func unmount(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }
