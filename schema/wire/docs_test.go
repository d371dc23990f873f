package wire_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// headers reads the names of all headers from the source.
func headers(t *testing.T) []string {
	t.Helper()
	out := map[string]bool{}
	for _, name := range []string{"wire.go", "deadletter.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !strings.HasPrefix(strings.ToLower(spec.Names[0].Name), "header") {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				header, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				out[header] = true
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(out))
}

func TestThePageNamesEveryHeader(t *testing.T) {
	page, err := os.ReadFile("../../docs/wire.md")
	if _, noWork := os.Stat("../../go.work"); errors.Is(err, fs.ErrNotExist) && noWork != nil {
		t.Skip("the module is here without the repository and its docs")
	}
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	inTable := false
	for line := range strings.Lines(string(page)) {
		switch {
		case strings.HasPrefix(line, "| header |"):
			inTable = true
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case inTable && strings.HasPrefix(line, "| `"):
			got = append(got, strings.Split(line, "`")[1])
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(headers(t), got); diff != "" {
		t.Errorf("docs/wire.md and the code differ in headers (-code +page):\n%s", diff)
	}
}
