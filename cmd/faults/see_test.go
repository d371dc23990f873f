//go:build faults

package faults_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock/penstock/cmd/faults/report"
)

// TestRowsThatNeedNoProcesses names, for the rows that are shown without real
// processes, the tests that show them. Each must exist.
func TestRowsThatNeedNoProcesses(t *testing.T) {
	rows := []report.Result{
		{
			Fault: "F16", What: "one machine's clock is 10 min off", Target: "tier delay within 1 s of the brokers' clock; no early expiry",
			See: []string{
				"TestAWrongMachineKeepsTheTiersWait", "TestAWaitInATierIsByTheBrokersClock", "TestDeadlinesAreByTheBrokersClock",
				"TestAWrongMachineLearnsTheBrokersTime",
			},
		},
		{
			Fault: "F18", What: "payloads at the limit and beyond, a result beyond the broker's limit",
			Target: "413 before Kafka; a reference or a typed error; no partition stuck",
			See: []string{
				"TestPayloadsBeyondTheStoresLimitAreRefused", "TestOnlyLargePayloadsLeaveTheRecord",
				"TestAResultTooLargeForTheTopicFailsWithAReason",
			},
		},
		{
			Fault: "F21", What: "1,000 keys x 100 identical submits at once, Redis up and away (a real Kafka; in this run, too)", Target: "one task for each key",
			See: []string{"TestAFloodOfIdenticalSubmitsIsOneTaskPerKey"},
		},
		{
			Fault: "F23", What: "done and pending by turns over 40,000 offsets, and one stuck head",
			Target: "a pause instead of an overflow; a restart replays only what is unfinished",
			See: []string{
				"TestTrackerPausesInsteadOfOverflowing", "TestAPendingHeadPausesThePartitionInsteadOfOverflowing",
				"TestARestartReplaysOnlyUnfinishedOffsets",
			},
		},
	}
	there := tests(t)
	for _, row := range rows {
		for _, name := range row.See {
			if !there[name] {
				t.Errorf("%s: there is no %s", row.Fault, name)
			}
		}
		report.Row(t, row)
	}
}

// tests are the names of all tests in the repository.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	must(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "build":
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "func "); ok {
				name, _, _ := strings.Cut(rest, "(")
				out[name] = true
			}
		}
		return err
	}))
	return out
}
