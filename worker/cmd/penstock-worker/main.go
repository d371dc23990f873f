// Command penstock-worker runs inference tasks from Kafka on backends.
package main

import (
	"os"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/worker"
)

func main() { os.Exit(lifecycle.Main(worker.Main)) }
