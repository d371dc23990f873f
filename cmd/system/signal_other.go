//go:build !unix

package system

import "syscall"

// Elsewhere no process can be frozen: the system refuses these.
const (
	sigStop = syscall.Signal(0x13)
	sigCont = syscall.Signal(0x12)
)
