package cli

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// workplace returns the directory of this binary, where the services' binaries
// lie beside it, and one for the logs of what is started. Services of another
// commit are refused: what is measured of them is somebody else's.
func workplace(verb string) (bin, dir string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", fmt.Errorf("find own binary: %w", err)
	}
	bin = filepath.Dir(self)
	if err := builtTogether(self, bin); err != nil {
		return "", "", err
	}
	dir, err = os.MkdirTemp("", "penstock-"+verb+"-")
	if err != nil {
		return "", "", fmt.Errorf("make a directory for logs: %w", err)
	}
	return bin, dir, nil
}

// builtTogether returns an error if a service beside a binary was built of
// another commit. One that is not there is for who starts it to tell.
func builtTogether(self, bin string) error {
	ours, err := commitOf(self)
	if err != nil {
		return err
	}
	for _, role := range []string{"producer", "worker", "resultsvc"} {
		path := filepath.Join(bin, "penstock-"+role)
		theirs, err := commitOf(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case theirs != ours:
			return fmt.Errorf("%s was built of %s, and this command of %s: build them together, as make build does", path, theirs, ours)
		}
	}
	return nil
}

// commitOf is what a binary was built of, as its build recorded it.
func commitOf(path string) (string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read how %s was built: %w", path, err)
	}
	commit := "no known commit"
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = "commit " + s.Value
		}
	}
	return commit, nil
}
