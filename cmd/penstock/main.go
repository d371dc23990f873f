// Command penstock runs Penstock on one machine, speaks to a running one, and
// measures it.
package main

import (
	"os"

	"github.com/penstock/penstock/cmd/penstock/cli"
	"github.com/penstock/penstock/internal/lifecycle"
)

func main() { os.Exit(lifecycle.Main(cli.Run)) }
