package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	pick := flags.String("run", "", "only mutants whose name matches")
	list := flags.Bool("list", false, "list them and do nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: name mutants by -run", flags.Arg(0))
	}
	wanted, err := regexp.Compile(*pick)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	root, err := treeRoot(ctx)
	if err != nil {
		return err
	}
	var chosen []mutant
	for _, m := range mutants() {
		if wanted.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	if *list {
		for _, m := range chosen {
			fmt.Fprintf(out, "%-30s %s\n", m.name, m.rule)
		}
		return nil
	}
	return tryAll(ctx, root, chosen, out)
}

// tryAll prints a line per mutant and fails if one survives.
func tryAll(ctx context.Context, root string, chosen []mutant, out io.Writer) error {
	if len(chosen) == 0 {
		return errors.New("no mutant has such a name; -list shows them")
	}
	var survivors []string
	for _, m := range chosen {
		v, err := m.try(ctx, root)
		if err != nil {
			return err
		}
		what := "killed by " + v.killedBy
		if v.killedBy == "" {
			what = "SURVIVED"
			survivors = append(survivors, m.name)
		}
		fmt.Fprintf(out, "%-30s %6s  %s\n", m.name, v.took.Round(100*time.Millisecond), what)
	}
	fmt.Fprintf(out, "%d mutants, %d killed\n", len(chosen), len(chosen)-len(survivors))
	if len(survivors) > 0 {
		return fmt.Errorf("no test notices: %s", strings.Join(survivors, ", "))
	}
	return nil
}

// treeRoot is the folder of the workspace file.
func treeRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	work := strings.TrimSpace(string(out))
	if err != nil || work == "" || work == "off" {
		return "", errors.New("run it inside the workspace: there is no go.work")
	}
	return filepath.Dir(work), nil
}
