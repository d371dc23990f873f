// Command faultreport turns the rows that a run of the fault ladder left behind
// into the table of the run, and writes it as Markdown and JSON.
//
//	faultreport -rows FILE -out DIR -name faults -title "Faults, one broker"
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/penstock/penstock/cmd/faults/report"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "faultreport:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	f := flag.NewFlagSet("faultreport", flag.ContinueOnError)
	rows := f.String("rows", "", "file of rows")
	dir := f.String("out", "", "directory for the Markdown and the JSON")
	name := f.String("name", "faults", "name of the files, without their ending")
	title := f.String("title", "Faults", "heading of the table")
	kafka := f.String("kafka", "", "version of Kafka")
	redis := f.String("redis", "", "version of Redis")
	if err := f.Parse(args); err != nil {
		return err
	}
	list, err := report.Read(*rows)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return errors.New("the run left no rows")
	}
	r := report.New(*title, versions(*kafka, *redis), list)
	return errors.Join(r.Text(out), r.Write(*dir, *name))
}

// versions leaves out what is not known.
func versions(kafka, redis string) map[string]string {
	out := map[string]string{"Go": strings.TrimPrefix(runtime.Version(), "go")}
	if rev, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		out["Penstock"] = strings.TrimSpace(string(rev))
	}
	for name, v := range map[string]string{"Kafka": kafka, "Redis": redis} {
		if v != "" {
			out[name] = v
		}
	}
	return out
}
