package bulk

import (
	"errors"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/config"
)

// Config is what an operator sets about files and batches. They need a blob
// store.
type Config struct {
	Window   int           `koanf:"window" usage:"tasks of one batch job in flight"`
	Batches  int           `koanf:"batches" usage:"batch jobs that one process runs at a time; others wait, or another process runs them"`
	MaxFile  config.Bytes  `koanf:"max_file" usage:"largest file that a client may send"`
	FileLife time.Duration `koanf:"file_life" usage:"how long a file lives whose client wants no shorter life; at most 720h, as penstock.control is kept"`
}

// DefaultConfig takes files of 200 MiB and keeps them as long as it can.
func DefaultConfig() Config {
	return Config{Window: 256, Batches: 4, MaxFile: 200 << 20, FileLife: longestLife}
}

const (
	// longestLife is how long penstock.control keeps what is known of a file.
	longestLife  = 30 * 24 * time.Hour
	mostInFlight = 10_000
	mostBatches  = 64
	largestFile  = 5 << 30
)

// Validate returns every fault at once.
func (c Config) Validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.Window < 1 || c.Window > mostInFlight, "window: must be 1 to %d", mostInFlight)
	fault(c.Batches < 1 || c.Batches > mostBatches, "batches: must be 1 to %d", mostBatches)
	fault(c.MaxFile < 1<<20 || c.MaxFile > largestFile, "max_file: must be 1MiB to 5GiB")
	fault(c.FileLife < leastLife || c.FileLife > longestLife, "file_life: must be %s to %s", leastLife, longestLife)
	return errors.Join(errs...)
}
