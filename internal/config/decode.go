package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decode sets v from what a source said: a string from the environment or a
// flag, or the tree that YAML made of a file. Each error begins with the path
// below the setting (".pools[2]") and ": ".
func decode(v reflect.Value, raw any) []error {
	text, isString := raw.(string)
	switch t := v.Type(); {
	case isScalar(t):
		return decodeScalar(v, raw)
	case t.Kind() == reflect.Pointer:
		p := reflect.New(t.Elem())
		faults := decode(p.Elem(), raw)
		v.Set(p)
		return faults
	case isString && t.Kind() == reflect.Slice && isScalar(t.Elem()):
		return decodeSlice(v, splitList(text))
	case isString:
		return decodeYAML(v, text)
	case t.Kind() == reflect.Slice:
		return decodeList(v, raw)
	case t.Kind() == reflect.Map:
		return decodeMap(v, raw)
	case t.Kind() == reflect.Struct:
		return decodeStruct(v, raw)
	default:
		panic(fmt.Sprintf("config: a setting cannot be a %s", t))
	}
}

// decodeScalar parses one word. YAML's own scalars go through their text, so
// that "30s", 8MiB and 5 are read alike wherever they stand.
func decodeScalar(v reflect.Value, raw any) []error {
	switch raw.(type) {
	case nil, []any, map[string]any, map[any]any:
		return fault("want one value, got %s", describe(raw))
	}
	if err := parse(v, strings.TrimSpace(fmt.Sprint(raw))); err != nil {
		return fault("%w", err)
	}
	return nil
}

func parse(v reflect.Value, s string) error {
	if v.Type() == durationType {
		return parseDuration(v, s)
	}
	if isText(v.Type()) {
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
	}
	bits := 0
	if v.CanInt() || v.CanUint() || v.CanFloat() {
		bits = v.Type().Bits()
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		return set(s, "true or false", strconv.ParseBool, v.SetBool)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return set(s, "a whole number", func(s string) (int64, error) { return strconv.ParseInt(s, 10, bits) }, v.SetInt)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return set(s, "a whole number that is not negative", func(s string) (uint64, error) { return strconv.ParseUint(s, 10, bits) }, v.SetUint)
	case reflect.Float32, reflect.Float64:
		return set(s, "a number", func(s string) (float64, error) { return strconv.ParseFloat(s, bits) }, v.SetFloat)
	default:
		panic(fmt.Sprintf("config: a setting cannot be a %s", v.Type()))
	}
	return nil
}

func set[T any](s, want string, parse func(string) (T, error), set func(T)) error {
	x, err := parse(s)
	if err != nil {
		return fmt.Errorf("want %s, got %q", want, s)
	}
	set(x)
	return nil
}

// parseDuration wants a unit: a bare 30 would be 30 nanoseconds.
func parseDuration(v reflect.Value, s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("want a duration with its unit, such as 30s, got %q", s)
	}
	v.SetInt(int64(d))
	return nil
}

// decodeYAML reads a structured setting from the environment or a flag.
func decodeYAML(v reflect.Value, text string) []error {
	var tree any
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		return fault("read as YAML: %w", err)
	}
	if _, still := tree.(string); still {
		return fault("want YAML for %s, got %q", shape(v.Type()), text)
	}
	return decode(v, tree)
}

func decodeList(v reflect.Value, raw any) []error {
	list, ok := raw.([]any)
	if !ok {
		if !isScalar(v.Type().Elem()) || raw == nil {
			return fault("want a list, got %s", describe(raw))
		}
		list = []any{raw} // `brokers: 9092` is a list of one
	}
	return decodeSlice(v, list)
}

func decodeSlice(v reflect.Value, list []any) []error {
	out := reflect.MakeSlice(v.Type(), len(list), len(list))
	var faults []error
	for i, raw := range list {
		faults = append(faults, within(fmt.Sprintf("[%d]", i), decode(out.Index(i), raw))...)
	}
	v.Set(out)
	return faults
}

func decodeMap(v reflect.Value, raw any) []error {
	m, ok := raw.(map[string]any)
	if !ok || v.Type().Key().Kind() != reflect.String {
		return fault("want a map, got %s", describe(raw))
	}
	out := reflect.MakeMap(v.Type())
	var faults []error
	for key, value := range m {
		elem := reflect.New(v.Type().Elem()).Elem()
		faults = append(faults, within("."+key, decode(elem, value))...)
		out.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), elem)
	}
	v.Set(out)
	return sortFaults(faults)
}

func decodeStruct(v reflect.Value, raw any) []error {
	m, ok := raw.(map[string]any)
	if !ok {
		return fault("want %s, got %s", shape(v.Type()), describe(raw))
	}
	var fields []field
	collect("", v, &fields)
	flat, faults := flattenIn(fields, m)
	for _, f := range fields {
		if value, ok := flat[f.name]; ok {
			faults = append(faults, within("."+f.name, decode(f.value, value))...)
		}
	}
	return sortFaults(faults)
}

// flattenIn is flatten for a struct inside a list or a map.
func flattenIn(fields []field, m map[string]any) (map[string]any, []error) {
	l, unknown := flatten(fields, "", m)
	var faults []error
	for _, err := range unknown {
		faults = append(faults, fmt.Errorf(".%s", strings.Replace(err.Error(), " in :", ":", 1)))
	}
	return l.values, faults
}

// splitList reads "a,b, c"; an empty text is an empty list.
func splitList(text string) []any {
	list := []any{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func fault(format string, args ...any) []error {
	return []error{fmt.Errorf(": "+format, args...)}
}

func within(path string, faults []error) []error {
	for i, err := range faults {
		faults[i] = fmt.Errorf("%s%w", path, err)
	}
	return slices.Clip(faults)
}

func describe(raw any) string {
	switch raw.(type) {
	case nil:
		return "nothing"
	case []any:
		return "a list"
	case map[string]any, map[any]any:
		return "a map"
	default:
		return fmt.Sprintf("%q", fmt.Sprint(raw))
	}
}

func shape(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		return "a list"
	case reflect.Map:
		return "a map"
	default:
		return "a map of settings"
	}
}
