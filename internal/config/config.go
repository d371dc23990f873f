// Package config fills a struct from its defaults, a YAML file, the environment
// and the command line, in that order; the later wins.
//
// One snake_case name per setting serves all: a field tagged
// `koanf:"drain_grace"` is drain_grace in the file, PENSTOCK_DRAIN_GRACE in the
// environment and --drain-grace on the command line. A tagged struct inside a
// struct adds its name as a prefix (kafka + brokers = kafka_brokers; the file
// may nest or not). An unknown name is an error that suggests the nearest one,
// and every fault is reported at once.
package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// EnvPrefix begins every environment variable that is read.
const EnvPrefix = "PENSTOCK_"

// fileKey is the setting that names the YAML file itself.
const fileKey = "config"

// Source is where the values come from.
type Source struct {
	Name   string              // the program's, for --help
	About  string              // one sentence, for --help
	Args   []string            // flags, without the program's name
	Getenv func(string) string // nil: no environment; an empty value counts as unset
	Help   io.Writer           // where --help is printed; nil: nowhere

	// Rest receives the arguments that are not flags; nil: there must be none.
	Rest *[]string
}

// Validator is what a configuration implements to check itself. Its error
// should join every fault, each named by the setting as the operator typed it.
type Validator interface{ Validate() error }

// Error carries every fault of a configuration. It exits 2.
type Error struct{ Faults []error }

// Error lists the faults, one a line.
func (e *Error) Error() string {
	if len(e.Faults) == 1 {
		return "configuration: " + e.Faults[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d faults", len(e.Faults))
	for _, f := range e.Faults {
		b.WriteString("\n  - " + strings.ReplaceAll(f.Error(), "\n", "\n  - "))
	}
	return b.String()
}

// Unwrap returns the faults for errors.Is and errors.As.
func (e *Error) Unwrap() []error { return e.Faults }

// ExitCode marks a usage error (lifecycle.ExitUsage).
func (e *Error) ExitCode() int { return 2 }

// Load overlays dst, a pointer to a struct that holds the defaults. It returns
// flag.ErrHelp after printing the help that --help or -h asked for, and an
// *Error with all faults of all sources. Load panics on a struct it cannot
// fill: an error of the programmer.
func Load(dst any, src Source) error {
	fields := fieldsOf(dst)
	args, faults := parseArgs(fields, src.Args)
	if args.help {
		return printHelp(src, fields)
	}
	faults = append(faults, src.takeRest(args.rest)...)
	env := readEnv(fields, src.Getenv)
	fromFile, fileFaults := readFile(fields, args.values, env)
	faults = append(faults, fileFaults...)
	faults = append(faults, fill(fields, fromFile, env, args.values)...)
	if v, ok := dst.(Validator); ok {
		if err := v.Validate(); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return &Error{faults}
	}
	return nil
}

// layer is what one source says. By maps a name to how the operator wrote it.
type layer struct {
	values map[string]any
	by     map[string]string
}

func newLayer() layer { return layer{map[string]any{}, map[string]string{}} }

func (l layer) set(name string, value any, by string) { l.values[name], l.by[name] = value, by }

// readEnv looks up every known name. Unknown PENSTOCK_ variables are no fault:
// several services may share one environment.
func readEnv(fields []field, getenv func(string) string) layer {
	l := newLayer()
	if getenv == nil {
		return l
	}
	for _, name := range append(names(fields), fileKey) {
		key := EnvPrefix + strings.ToUpper(name)
		if v := getenv(key); v != "" {
			l.set(name, v, key)
		}
	}
	return l
}

// readFile reads the YAML file that a flag or the environment names, if any.
func readFile(fields []field, flags, env layer) (layer, []error) {
	path, by := env.values[fileKey], env.by[fileKey]
	if p, ok := flags.values[fileKey]; ok {
		path, by = p, flags.by[fileKey]
	}
	name, _ := path.(string)
	if name == "" {
		return newLayer(), nil
	}
	k := koanf.New(".")
	if err := k.Load(file.Provider(name), yaml.Parser()); err != nil {
		return newLayer(), []error{fmt.Errorf("%s: read file %s: %w", by, name, err)}
	}
	return flatten(fields, name, k.Raw())
}

// flatten gives the file's keys, nested or not, their one name.
func flatten(fields []field, path string, raw map[string]any) (layer, []error) {
	l := newLayer()
	var faults []error
	known := names(fields)
	var walk func(prefix, typed string, m map[string]any)
	walk = func(prefix, typed string, m map[string]any) {
		for key, value := range m {
			name, typed := prefix+key, typed+key
			by := fmt.Sprintf("%s in %s", typed, path)
			_, twice := l.values[name]
			nested, isMap := value.(map[string]any)
			switch {
			case twice:
				faults = append(faults, fmt.Errorf("%s: given twice", by))
			case has(fields, name):
				l.set(name, value, by)
			case isMap && isPrefix(known, name+"_"):
				walk(name+"_", typed+".", nested)
			default:
				faults = append(faults, fmt.Errorf("%s: unknown setting%s", by, suggest(name, known)))
			}
		}
	}
	walk("", "", raw)
	return l, sortFaults(faults)
}

// fill merges the layers and decodes each value into its field.
func fill(fields []field, layers ...layer) []error {
	k := koanf.New(".")
	by := map[string]string{}
	var faults []error
	for _, l := range layers {
		if err := k.Load(confmap.Provider(l.values, ""), nil); err != nil {
			faults = append(faults, err)
		}
		maps.Copy(by, l.by)
	}
	merged := k.Raw()
	for _, f := range fields {
		if value, ok := merged[f.name]; ok {
			for _, err := range decode(f.value, value) {
				faults = append(faults, fmt.Errorf("%s%w", by[f.name], err))
			}
		}
	}
	return faults
}

// takeRest hands over the arguments that are not flags, or refuses them.
func (s Source) takeRest(rest []string) []error {
	if s.Rest != nil {
		*s.Rest = rest
		return nil
	}
	var faults []error
	for _, arg := range rest {
		faults = append(faults, fmt.Errorf("unexpected argument %q", arg))
	}
	return faults
}

// printHelp prints the help and tells the caller to stop.
func printHelp(src Source, fields []field) error {
	if src.Help == nil {
		return flag.ErrHelp
	}
	if _, err := io.WriteString(src.Help, help(src, fields)); err != nil {
		return errors.Join(flag.ErrHelp, err)
	}
	return flag.ErrHelp
}
