package report

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is a run's rows and what they were measured on.
type Report struct {
	Title    string            `json:"title"`
	At       time.Time         `json:"at"`
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"` // of Penstock, Go, Kafka, Redis
	Rows     []Result          `json:"rows"`
}

// New sorts the rows by their fault and describes the machine.
func New(title string, versions map[string]string, rows []Result) Report {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b Result) int { return number(a.Fault) - number(b.Fault) })
	return Report{
		Title: title, At: time.Now().UTC().Truncate(time.Second), Versions: versions, Rows: rows,
		Machine: fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
	}
}

// number is that of a fault: F9 comes before F10.
func number(fault string) int {
	n, err := strconv.Atoi(strings.TrimLeft(fault, "F"))
	if err != nil {
		return 1 << 10
	}
	return n
}

// Summary counts the verdicts.
func (r Report) Summary() string {
	counts := map[string]int{}
	for _, row := range r.Rows {
		counts[row.Verdict()]++
	}
	return fmt.Sprintf("%d rows: %d ok, %d missed a target, %d broke an invariant, %d absent here, %d shown by other tests",
		len(r.Rows), counts["ok"], counts["MISS"], counts["BROKEN"], counts["absent"], counts["see"])
}

// Text prints the table for a terminal.
func (r Report) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FAULT\tVERDICT\tTARGET\tMEASURED\tSEED\tTOOK")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", row.Fault, row.Verdict(), line(row.Target), line(row.outcome()), row.seed(), row.took())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, r.Summary())
	return err
}

// Markdown prints the same for a page.
func (r Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n%s on %s.", r.Title, r.At.Format("2006-01-02 15:04 MST"), r.Machine)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(&b, " %s %s.", name, r.Versions[name])
	}
	b.WriteString("\n\n| fault | what | target | measured | verdict | seed | took |\n|---|---|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		for _, cell := range []string{row.Fault, row.What, row.Target, row.outcome(), row.Verdict(), row.seed(), row.took()} {
			b.WriteString("| " + strings.ReplaceAll(line(cell), "|", `\|`) + " ")
		}
		b.WriteString("|\n")
	}
	fmt.Fprintf(&b, "\n%s.\n", r.Summary())
	_, err := io.WriteString(w, b.String())
	return err
}

// Write puts the report into a directory as NAME.md and NAME.json.
func (r Report) Write(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	var md strings.Builder
	if err := r.Markdown(&md); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".md"), []byte(md.String()), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// outcome is what was measured, or why not, and what broke.
func (r Result) outcome() string {
	parts := slices.DeleteFunc([]string{r.Measured, strings.Join(r.See, ", "), r.Absent}, func(s string) bool { return s == "" })
	return strings.Join(append(parts, r.Broken...), "; ")
}

func (r Result) seed() string {
	if r.Seed == 0 {
		return "–"
	}
	return strconv.FormatUint(r.Seed, 10)
}

func (r Result) took() string {
	if r.Took == 0 {
		return "–"
	}
	return r.Took.Round(100 * time.Millisecond).String()
}

func line(s string) string { return strings.Join(strings.Fields(s), " ") }
