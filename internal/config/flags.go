package config

import (
	"fmt"
	"reflect"
	"strings"
	"text/tabwriter"
	"time"
)

// parsedArgs is what the command line says.
type parsedArgs struct {
	values layer
	rest   []string
	help   bool
}

// parseArgs reads --name value, --name=value and, for a bool, --name alone.
// "--" ends the flags. Every fault is returned, not only the first.
func parseArgs(fields []field, args []string) (parsedArgs, []error) {
	p := parsedArgs{values: newLayer()}
	var faults []error
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			p.rest = append(p.rest, args...)
			break
		}
		if arg == "-h" || arg == "--help" {
			p.help = true
			continue
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			p.rest = append(p.rest, arg)
			continue
		}
		used, err := p.takeFlag(fields, arg, args)
		if err != nil {
			faults = append(faults, err)
		}
		args = args[used:]
	}
	return p, faults
}

// takeFlag stores one flag and says how many of the following words it used.
func (p *parsedArgs) takeFlag(fields []field, arg string, following []string) (used int, err error) {
	typed, value, hasValue := strings.Cut(arg, "=")
	name := strings.ReplaceAll(strings.TrimPrefix(typed, "--"), "-", "_")
	isBool, known := lookup(fields, name)
	switch {
	case !known || !strings.HasPrefix(typed, "--"):
		return 0, fmt.Errorf("unknown flag %s%s", typed, suggestFlag(typed, fields))
	case hasValue:
	case isBool:
		value = "true"
	case len(following) == 0:
		return 0, fmt.Errorf("%s: a value is missing", typed)
	default:
		value, used = following[0], 1
	}
	p.values.set(name, value, typed)
	return used, nil
}

func lookup(fields []field, name string) (isBool, known bool) {
	if name == fileKey {
		return false, true
	}
	for _, f := range fields {
		if f.name == name {
			return f.value.Kind() == reflect.Bool, true
		}
	}
	return false, false
}

func suggestFlag(typed string, fields []field) string {
	known := []string{"--config", "--help"}
	for _, f := range fields {
		known = append(known, f.flag())
	}
	return suggest(typed, known)
}

// help is the text of --help: every setting with its three names and default.
func help(src Source, fields []field) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s [flags]\n\n", src.Name)
	if src.About != "" {
		fmt.Fprintf(&b, "%s\n\n", src.About)
	}
	fmt.Fprintf(&b, "Flags beat the environment, which beats the file. In the file a setting has its\nflag's name with underscores: --drain-grace is drain_grace.\n\n")
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "  --config FILE\tYAML file of settings\t%sCONFIG\n", EnvPrefix)
	for _, f := range fields {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", strings.TrimRight(f.flag()+" "+f.kind(), " "), f.usage+f.defaultText(), f.env())
	}
	_ = w.Flush() // a strings.Builder does not fail
	return b.String()
}

// defaultText shows the default, but no zero value and never a secret.
func (f field) defaultText() string {
	if f.value.IsZero() {
		return ""
	}
	t := f.value.Type()
	if t.Kind() == reflect.Slice && isScalar(t.Elem()) {
		return fmt.Sprintf(" (default %s)", joinList(f.value))
	}
	if !isScalar(t) {
		return " (has a default)"
	}
	if d, ok := reflect.TypeAssert[time.Duration](f.value); ok {
		return fmt.Sprintf(" (default %s)", shortDuration(d))
	}
	return fmt.Sprintf(" (default %v)", f.value.Interface())
}

// shortDuration writes 72h, not 72h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func joinList(v reflect.Value) string {
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(parts, ",")
}
