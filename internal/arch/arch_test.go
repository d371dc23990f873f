// Package arch holds no code, only the test that the tree keeps its import
// rules: who may import whom, where each third-party library may appear, and
// that the modules of the workspace agree with each other.
package arch_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const prefix = "github.com/penstock/penstock/"

// may says which modules a module may import. An entry that is missing here
// may import none.
var may = map[string][]string{
	"schema":    {},
	"internal":  {"schema"},
	"producer":  {"schema", "internal"},
	"worker":    {"schema", "internal"},
	"resultsvc": {"schema", "internal"},
	"cmd":       {"schema", "internal", "producer", "worker", "resultsvc"},
}

// placement says in which packages, by their last path element, a third-party
// library may be imported. Tests are free. A new place is a decision: add it
// here and say why in the commit. (bare is the benchmark's baseline: an Echo
// handler that only produces; backlog reads lag for admission.)
var placement = []struct {
	library string
	only    []string
	cmd     bool // the CLI and its one-process mode may too
}{
	{"github.com/labstack/echo/v4", []string{"httpserver", "httpapi", "poll", "sse", "ws", "bare"}, false},
	{"github.com/twmb/franz-go/pkg/kgo", []string{"kafkaclient", "tasktopic", "consume", "project", "follow", "retry", "mover", "redrive", "backlog", "sweep", "webhook", "devstack"}, true},
	{"github.com/twmb/franz-go/pkg/kadm", []string{"kafkaclient", "tasktopic", "consume", "project", "follow", "retry", "mover", "redrive", "backlog", "sweep", "webhook", "devstack"}, true},
	{"github.com/redis/go-redis/v9", []string{"redisclient", "taskstore", "eventlog", "projection", "convstore", "repeat"}, true},
	{"google.golang.org/grpc", []string{"rpc", "grpcapi"}, false},
	{"github.com/minio/minio-go/v7", []string{"blob"}, false},
	{"github.com/coder/websocket", []string{"ws"}, false},
	{"github.com/cenkalti/backoff/v4", []string{"retry", "webhook"}, false},
	{"github.com/twmb/franz-go/pkg/kfake", []string{"devstack"}, false},
	{"github.com/alicebob/miniredis/v2", []string{"devstack"}, false},
}

// forbidden is nowhere right, tests included.
var forbidden = map[string]string{
	"log":                                 "use log/slog",
	"math/rand":                           "use math/rand/v2 or crypto/rand",
	"github.com/pkg/errors":               "use fmt.Errorf with %w",
	"github.com/stretchr/testify/assert":  "use the standard library and go-cmp",
	"github.com/stretchr/testify/require": "use the standard library and go-cmp",
}

// pkg is what the go command tells about one package.
type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func (p pkg) tests() []string { return slices.Concat(p.TestImports, p.XTestImports) }

// module returns the first path element below our prefix, or "" for others.
func module(importPath string) string {
	rest, ours := strings.CutPrefix(importPath, prefix)
	if !ours {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out := run(t, "", "list", "-tags", "integration,e2e,faults,chaos,soak", "-json=ImportPath,Dir,Name,Imports,TestImports,XTestImports", "work")
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(may) {
		t.Fatalf("the workspace lists only %d packages", len(all))
	}
	return all
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, exit.Stderr)
		}
		t.Fatal(err)
	}
	return string(out)
}

func TestModulesImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		from := module(p.ImportPath)
		if _, known := may[from]; !known {
			t.Errorf("module %s has no entry in the table of rules", from)
		}
		for _, imp := range slices.Concat(p.Imports, p.tests()) {
			if to := module(imp); to != "" && to != from && !slices.Contains(may[from], to) {
				t.Errorf("%s imports %s; %s may import only %v", p.ImportPath, imp, from, may[from])
			}
		}
	}
}

func TestTheContractNeedsOnlyTheStandardLibrary(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if module(p.ImportPath) != "schema" {
			continue
		}
		for _, imp := range p.Imports {
			if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") && module(imp) != "schema" {
				t.Errorf("%s imports %s: strangers import the contract, and would get this with it", p.ImportPath, imp)
			}
		}
	}
}

func TestLibrariesStayInTheirPlace(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, rule := range placement {
			here := slices.Contains(rule.only, strings.TrimSuffix(path.Base(p.ImportPath), "test")) || rule.cmd && module(p.ImportPath) == "cmd"
			if !here && slices.Contains(p.Imports, rule.library) {
				t.Errorf("%s imports %s, which only %v may", p.ImportPath, rule.library, rule.only)
			}
		}
		for _, imp := range slices.Concat(p.Imports, p.tests()) {
			if instead, bad := forbidden[imp]; bad {
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, instead)
			}
		}
	}
}

func TestASubpackageNeverImportsItsRoot(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		root := prefix + module(p.ImportPath)
		isMain := p.Name == "main"
		for _, imp := range slices.Concat(p.Imports, p.tests()) {
			if imp == root && p.ImportPath != root && !isMain {
				t.Errorf("%s imports the root %s: the root wires its parts, the parts do not know it", p.ImportPath, root)
			}
		}
	}
}

func TestSiblingsOfOnePortDoNotKnowEachOther(t *testing.T) {
	t.Parallel()
	groups := [][]string{
		{"producer/httpapi", "producer/ws", "producer/grpcapi"},
		{"resultsvc/poll", "resultsvc/sse"},
		backends(packages(t)),
	}
	for _, p := range packages(t) {
		for _, group := range groups {
			if !slices.Contains(group, strings.TrimPrefix(p.ImportPath, prefix)) {
				continue
			}
			for _, imp := range p.Imports {
				if other := strings.TrimPrefix(imp, prefix); imp != p.ImportPath && slices.Contains(group, other) {
					t.Errorf("%s imports its sibling %s", p.ImportPath, imp)
				}
			}
		}
	}
}

// backends lists worker/backend/<technology>; a conformance suite is none.
func backends(all []pkg) []string {
	var out []string
	for _, p := range all {
		if name := strings.TrimPrefix(p.ImportPath, prefix); path.Dir(name) == "worker/backend" && !strings.HasSuffix(name, "test") {
			out = append(out, name)
		}
	}
	return out
}

func TestTestPackagesStayOutOfBinaries(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if strings.HasSuffix(path.Base(p.ImportPath), "test") {
			continue
		}
		for _, imp := range p.Imports {
			if module(imp) != "" && strings.HasSuffix(path.Base(imp), "test") {
				t.Errorf("%s imports %s outside its tests", p.ImportPath, imp)
			}
			if imp == "testing" {
				t.Errorf("%s imports testing outside its tests", p.ImportPath)
			}
		}
	}
}

func TestNoPackageRunsCodeByBeingImported(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution|parser.ParseComments) // a comment says that a file is generated
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range tree.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" && !ast.IsGenerated(tree) {
					t.Errorf("%s has an init function", file)
				}
			}
		}
	}
}

// goMod is what `go mod edit -json` tells.
type goMod struct {
	Module  struct{ Path string }
	Go      string
	Require []struct {
		Path, Version string
		Indirect      bool
	}
	Replace []struct{ Old, New struct{ Path string } }
}

// modules returns the go.mod of every folder that has one, by folder name.
func modules(t *testing.T) (root string, mods map[string]goMod) {
	t.Helper()
	root = filepath.Dir(strings.TrimSpace(run(t, "", "env", "GOWORK")))
	mods = map[string]goMod{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && file != root && (strings.HasPrefix(name, ".") || name == "build" || name == "testdata" || name == "node_modules") {
			return fs.SkipDir
		}
		if d.Name() != "go.mod" {
			return nil
		}
		var m goMod
		if err := json.Unmarshal([]byte(run(t, filepath.Dir(file), "mod", "edit", "-json")), &m); err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(file))
		mods[folder] = m
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return root, mods
}

func TestTheWorkspaceListsEveryModule(t *testing.T) {
	t.Parallel()
	root, mods := modules(t)
	var work struct{ Use []struct{ DiskPath string } }
	if err := json.Unmarshal([]byte(run(t, root, "work", "edit", "-json")), &work); err != nil {
		t.Fatal(err)
	}
	var used []string
	for _, u := range work.Use {
		used = append(used, filepath.Clean(u.DiskPath))
	}
	for folder, m := range mods {
		if !slices.Contains(used, folder) {
			t.Errorf("%s has a go.mod, and go.work does not use it", folder)
		}
		if m.Module.Path != prefix+filepath.ToSlash(folder) {
			t.Errorf("the module in %s is named %s", folder, m.Module.Path)
		}
		if m.Go != mods["schema"].Go {
			t.Errorf("%s says go %s, schema says go %s", folder, m.Go, mods["schema"].Go)
		}
	}
}

// A go.work hides a missing require and a missing replace; builds without it
// (Docker, GOWORK=off) do not.
func TestSiblingsAreRequiredAndReplaced(t *testing.T) {
	t.Parallel()
	_, mods := modules(t)
	imports := map[string][]string{}
	for _, p := range packages(t) {
		from := module(p.ImportPath)
		for _, imp := range slices.Concat(p.Imports, p.tests()) {
			if to := module(imp); to != "" && to != from {
				imports[from] = append(imports[from], to)
			}
		}
	}
	for folder, m := range mods {
		var required, replaced []string
		for _, r := range m.Require {
			required = append(required, module(r.Path))
		}
		for _, r := range m.Replace {
			replaced = append(replaced, module(r.Old.Path))
			if to := module(r.Old.Path); to != "" && r.New.Path != "../"+to {
				t.Errorf("%s replaces %s by %s, want ../%s", folder, to, r.New.Path, to)
			}
		}
		for _, to := range slices.Compact(slices.Sorted(slices.Values(imports[folder]))) {
			for _, ancestor := range append([]string{to}, may[to]...) { // replace is not transitive
				if !slices.Contains(replaced, ancestor) {
					t.Errorf("%s has no replace for %s", folder, ancestor)
				}
			}
			if !slices.Contains(required, to) {
				t.Errorf("%s imports %s and does not require it", folder, to)
			}
		}
	}
}

func TestModulesAgreeOnVersions(t *testing.T) {
	t.Parallel()
	_, mods := modules(t)
	type use struct{ folder, version string }
	seen := map[string]use{}
	for folder, m := range mods {
		for _, r := range m.Require {
			first, ok := seen[r.Path]
			if ok && first.version != r.Version {
				t.Errorf("%s requires %s %s, %s requires %s", folder, r.Path, r.Version, first.folder, first.version)
			}
			seen[r.Path] = use{folder, r.Version}
		}
	}
}
