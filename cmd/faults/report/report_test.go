package report_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/cmd/faults/report"
)

// recorder is a test that may fail without failing ours.
type recorder struct{ failed bool }

func (r *recorder) Helper()               {}
func (r *recorder) Name() string          { return "TestOfTheirs" }
func (r *recorder) Logf(string, ...any)   {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "rows.jsonl")
	t.Setenv(report.Variable, path)
	for name, c := range map[string]struct {
		row     report.Result
		verdict string
		fails   bool
	}{
		"a met target is ok":                          {report.Result{Fault: "F1", OK: true, Seed: 7, Took: time.Second}, "ok", false},
		"a missed target is named and does not fail":  {report.Result{Fault: "F10"}, "MISS", false},
		"a broken invariant fails the test":           {report.Result{Fault: "F2", OK: true, Broken: []string{"I1: 3 lost"}}, "BROKEN", true},
		"a fault that cannot be had here says why so": {report.Result{Fault: "F19", Absent: "not root"}, "absent", false},
		"what other tests show names them":            {report.Result{Fault: "F23", See: []string{"TestTracker"}}, "see", false},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			report.Row(&r, c.row)
			if r.failed != c.fails || c.row.Verdict() != c.verdict {
				t.Errorf("failed %v, verdict %s", r.failed, c.row.Verdict())
			}
		})
	}
	rows, err := report.Read(path)
	if err != nil || len(rows) != 5 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	var order []string
	for _, r := range report.New("t", nil, rows).Rows {
		order = append(order, r.Fault)
		if r.Test != "TestOfTheirs" {
			t.Errorf("row of %q", r.Test)
		}
	}
	if d := cmp.Diff([]string{"F1", "F2", "F10", "F19", "F23"}, order); d != "" {
		t.Error(d)
	}
}

func TestReport(t *testing.T) {
	rows := []report.Result{
		{Fault: "F2", What: "a | in\na cell", Target: "<= 5 s", Measured: "3 s", OK: true, Seed: 42, Took: 1234 * time.Millisecond},
		{Fault: "F3", Measured: "all", Broken: []string{"I2: 1 twice"}},
	}
	r := report.New("The ladder", map[string]string{"Kafka": "4.3.1", "Go": "go1"}, rows)
	dir := t.TempDir()
	if err := r.Write(dir, "faults"); err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(dir, "faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"### The ladder", "Go go1. Kafka 4.3.1.",
		`| F2 | a \| in a cell | <= 5 s | 3 s | ok | 42 | 1.2s |`,
		"| F3 |  |  | all; I2: 1 twice | BROKEN | – | – |",
		"2 rows: 1 ok, 0 missed a target, 1 broke an invariant",
	} {
		if !strings.Contains(string(md), want) {
			t.Errorf("the page has no %q:\n%s", want, md)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "faults.json"))
	if err != nil {
		t.Fatal(err)
	}
	var back report.Report
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, back); d != "" {
		t.Error(d)
	}
	var text strings.Builder
	if err := r.Text(&text); err != nil || !strings.Contains(text.String(), "F2     ok       <= 5 s") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

func TestReadTellsWhichRowIsBroken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows")
	if err := os.WriteFile(path, []byte("{}\n{\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Read(path); err == nil || !strings.Contains(err.Error(), "row 2") {
		t.Errorf("%v", err)
	}
	if rows, err := report.Read(path + "-none"); err != nil || rows != nil {
		t.Errorf("%v, %v", rows, err)
	}
}
