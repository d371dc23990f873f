package fault_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/fault"
)

// declaration is one constant of type Code, with the comment beside it.
type declaration struct {
	code fault.Code
	from string
}

// declarations reads the codes from the source, so that a new one cannot be
// forgotten in the rules or on the page.
func declarations(t *testing.T) []declaration {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "fault.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var out []declaration
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "Code" {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			t.Fatalf("%s is not a plain string", spec.Names[0])
		}
		code, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, declaration{fault.Code(code), strings.TrimSpace(spec.Comment.Text())})
		return true
	})
	return out
}

// columns are those of the tables of rules.
const columns = 7

// row is a rule as docs/faults.md has it.
func row(d declaration) string {
	r := fault.RuleOf(d.code)
	next := map[fault.Next]string{
		fault.NextRetry:      "retry",
		fault.NextRequeue:    "requeue at once",
		fault.NextFail:       "terminal `failed`",
		fault.NextDeadLetter: "dead letter, terminal `dead`",
		fault.NextEnd:        "terminal `" + string(r.Code) + "`",
		fault.NextDrop:       "drop, write nothing",
	}[r.Next]
	spends := "–"
	if r.Next == fault.NextRetry || r.Next == fault.NextRequeue {
		spends = yesNo(r.Class == fault.ClassTask)
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s | %d |", d.code, d.from, r.Class, next, spends, yesNo(r.Breaker), r.Status)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func TestThePageShowsTheRules(t *testing.T) {
	page, err := os.ReadFile("../../docs/faults.md")
	if errors.Is(err, fs.ErrNotExist) && outsideTheRepository() {
		t.Skip("the module is here without the repository and its docs")
	}
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, d := range declarations(t) {
		want = append(want, row(d))
	}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "| `") && strings.Count(line, "|") == columns+1 { // other tables are of other things
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/faults.md and the rules differ (-rules +page):\n%s", diff)
	}
}

func outsideTheRepository() bool {
	_, err := os.Stat("../../go.work")
	return errors.Is(err, fs.ErrNotExist)
}
