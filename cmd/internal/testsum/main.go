// Command testsum makes the output of `go test -json` short and countable.
//
//	go test -json ... | testsum -counts FILE     print packages, failures and skips; add to the counts
//	testsum -counts FILE -total [-no-skips]      print "N passed, N failed, N skipped"
//
// It exits 1 when anything failed, when no test ran at all, or, with -no-skips,
// when a test was skipped.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, in io.Reader, out, errOut io.Writer) int {
	flags := flag.NewFlagSet("testsum", flag.ContinueOnError)
	flags.SetOutput(errOut)
	path := flags.String("counts", "", "file that adds up the counts of several runs")
	total := flags.Bool("total", false, "print the counts")
	noSkips := flags.Bool("no-skips", false, "a skipped test is a failure")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	counts, err := load(*path)
	if err == nil && *total {
		return counts.report(out, *noSkips)
	}
	before := counts.Failed
	if err == nil {
		err = newReader(out, &counts).read(in)
	}
	if err == nil {
		err = counts.save(*path)
	}
	if err != nil {
		fmt.Fprintln(errOut, "testsum:", err)
		return 1
	}
	if counts.Failed > before {
		return 1
	}
	return 0
}

// counts adds up over runs. A package that failed without a failing test (it
// did not build, panicked or timed out) counts as one failure.
type counts struct{ Passed, Failed, Skipped int }

func load(path string) (counts, error) {
	var c counts
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(text, &c)
}

func (c counts) save(path string) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// report prints the closing line and returns the exit code.
func (c counts) report(out io.Writer, noSkips bool) int {
	if c.Skipped > 0 {
		fmt.Fprintf(out, "\n!!! %d tests were SKIPPED: see the SKIP lines above\n", c.Skipped)
	}
	code := 0
	switch {
	case c.Failed > 0:
		code = 1
	case c.Passed == 0:
		fmt.Fprintln(out, "no test ran")
		code = 1
	case noSkips && c.Skipped > 0:
		fmt.Fprintln(out, "a skipped test is a failure here (CI)")
		code = 1
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", c.Passed, c.Failed, c.Skipped)
	return code
}

// event is one line of `go test -json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64
	Output     string
}

// reader follows one run. It keeps each test's output until the test ends.
type reader struct {
	out     io.Writer
	counts  *counts
	output  map[string][]string // by package and test
	failed  map[string]bool     // packages with a failing test
	running map[string]bool     // tests that have not ended, by package and test
}

func newReader(out io.Writer, c *counts) *reader {
	return &reader{out, c, map[string][]string{}, map[string]bool{}, map[string]bool{}}
}

func (r *reader) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line takes an event; what is no JSON is the go command's own word.
func (r *reader) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		_, _ = r.out.Write(line)
		return
	}
	key := e.Package + " " + e.Test
	switch {
	case e.Action == "build-output":
		fmt.Fprint(r.out, e.Output)
	case e.Action == "output":
		r.output[key] = append(r.output[key], e.Output)
	case e.Action == "run":
		r.running[key] = true
	case e.Test != "":
		r.endTest(e, key)
	default:
		r.endPackage(e, key)
	}
}

func (r *reader) endTest(e event, key string) {
	switch e.Action {
	case "pass":
		r.counts.Passed++
	case "fail":
		r.counts.Failed++
		r.failed[e.Package] = true
		r.flush(key)
	case "skip":
		r.counts.Skipped++
		fmt.Fprintf(r.out, "SKIP  %s %s\n", e.Package, e.Test)
		r.flush(key)
	default:
		return // pause, cont, bench
	}
	delete(r.output, key)
	delete(r.running, key)
}

func (r *reader) endPackage(e event, key string) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.out, "ok    %s  %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		r.flushRunning(e.Package)
		r.flush(key)
		fmt.Fprintf(r.out, "FAIL  %s  %.1fs\n", e.Package, e.Elapsed)
		if !r.failed[e.Package] {
			r.counts.Failed++
		}
	default:
		return // start; skip: no test files
	}
	delete(r.output, key)
}

// flushRunning shows what was under way when a package panicked or timed out.
func (r *reader) flushRunning(pkg string) {
	for _, key := range slices.Sorted(maps.Keys(r.running)) {
		if strings.HasPrefix(key, pkg+" ") {
			r.flush(key)
			delete(r.running, key)
		}
	}
}

func (r *reader) flush(key string) {
	for _, text := range r.output[key] {
		if trimmed := strings.TrimSpace(text); strings.HasPrefix(trimmed, "=== ") {
			continue
		}
		fmt.Fprint(r.out, text)
	}
	delete(r.output, key)
}
