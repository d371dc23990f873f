package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// bareChild is the yardstick's process. The first line it prints is its URL.
type bareChild struct {
	cmd *exec.Cmd
	url string
}

func startChild(ctx context.Context, path string, args ...string) (*bareChild, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the bare handler: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the bare handler: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = cmd.Wait()
		return nil, fmt.Errorf("the bare handler did not start: %w", err)
	}
	return &bareChild{cmd: cmd, url: strings.TrimSpace(line)}, nil
}

func (c *bareChild) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	_ = c.cmd.Wait() // it ends by our signal, or has said why on stderr
}
