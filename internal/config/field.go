package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// field is one setting: a leaf of the configuration struct.
type field struct {
	name  string // snake_case, with its prefixes
	usage string
	value reflect.Value // settable; holds the default until it is filled
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// fieldsOf lists the settings of dst in the order of the struct.
func fieldsOf(dst any) []field {
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: %T is not a pointer to a struct", dst))
	}
	var out []field
	collect("", v.Elem(), &out)
	seen := map[string]bool{fileKey: true, "help": true}
	for _, f := range out {
		if seen[f.name] {
			panic("config: two settings are named " + f.name)
		}
		seen[f.name] = true
	}
	return out
}

// collect appends the leaves of one struct. A field without a tag, or with
// "-", is not a setting, unless it is an embedded struct.
func collect(prefix string, v reflect.Value, out *[]field) {
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		tag, _, _ := strings.Cut(sf.Tag.Get("koanf"), ",")
		switch {
		case sf.Anonymous && tag == "" && sf.Type.Kind() == reflect.Struct:
			collect(prefix, v.Field(i), out)
		case tag == "" || tag == "-":
		case isGroup(sf.Type):
			collect(prefix+tag+"_", v.Field(i), out)
		default:
			*out = append(*out, field{prefix + tag, sf.Tag.Get("usage"), v.Field(i)})
		}
	}
}

// isGroup reports whether a type is a struct of settings, not one value.
func isGroup(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !isText(t)
}

// isText reports whether a value of the type parses itself from text.
func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

// isScalar reports whether a value of the type is written as one word.
func isScalar(t reflect.Type) bool {
	if isText(t) || t == durationType {
		return true
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Map, reflect.Struct, reflect.Pointer:
		return false
	default:
		return true
	}
}

func (f field) flag() string { return "--" + strings.ReplaceAll(f.name, "_", "-") }

func (f field) env() string { return EnvPrefix + strings.ToUpper(f.name) }

// kind names the type for --help.
func (f field) kind() string {
	t := f.value.Type()
	switch {
	case t == durationType:
		return "duration"
	case t == reflect.TypeFor[Bytes]():
		return "size"
	case t.Kind() == reflect.Slice && isScalar(t.Elem()):
		return "list"
	case !isScalar(t):
		return "yaml"
	case t.Kind() == reflect.Bool:
		return ""
	case isText(t) || t.Kind() == reflect.String:
		return "text"
	default:
		return "number"
	}
}

func names(fields []field) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.name
	}
	return out
}

func has(fields []field, name string) bool {
	return slices.ContainsFunc(fields, func(f field) bool { return f.name == name })
}

func isPrefix(known []string, prefix string) bool {
	return slices.ContainsFunc(known, func(n string) bool { return strings.HasPrefix(n, prefix) })
}

// suggest returns " (did you mean X?)" when a known name is near.
func suggest(name string, known []string) string {
	best, nearest := "", len(name)/3+2
	for _, k := range known {
		if d := distance(name, k); d < nearest {
			best, nearest = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func sortFaults(faults []error) []error {
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return faults
}
