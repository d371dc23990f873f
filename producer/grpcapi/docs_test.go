package grpcapi_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/producer/grpcapi"
	"github.com/penstock/penstock/schema/fault"
)

// The table of docs/faults.md is the promise, codeOf keeps it.
func TestThePageOfFaultsSaysWhatIsAnswered(t *testing.T) {
	page, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| code | gRPC status |")
	if !found {
		t.Fatal("docs/faults.md has no table of gRPC statuses")
	}
	told, want := map[string]string{}, map[string]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			if len(told) > 0 {
				break
			}
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			if name = strings.Trim(name, " `"); !strings.HasPrefix(name, "-") {
				told[name] = strings.Trim(cells[2], " `")
			}
		}
	}
	for _, c := range fault.Codes() {
		want[string(c)] = grpcapi.CodeOf(c).String()
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("docs/faults.md and the code differ (-code +page):\n%s", diff)
	}
}
