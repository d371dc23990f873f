//go:build !unix

package bench

// enoughFiles knows no limit of open files here.
func enoughFiles(int) error { return nil }
