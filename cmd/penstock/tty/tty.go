// Package tty tells people's screens from files and pipes.
package tty

import (
	"os"

	"github.com/mattn/go-isatty"
)

// Is reports whether a stream is a person's screen.
func Is(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
