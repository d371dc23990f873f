package system

import (
	"os/exec"
	"syscall"
)

// dieWithParent lets the kernel stop the child when we are killed ourselves.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
