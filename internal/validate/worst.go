package validate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/penstock/penstock/schema/fault"
)

// worst returns the one offence to tell the caller about. Maps are walked in
// random order, so the choice is by rank, depth and path, never by position.
func worst(root *jsonschema.ValidationError) *Error {
	e := pick(root)
	out := describe(e)
	out.Offset = -1
	return out
}

// pick descends to the offence that explains the most.
func pick(e *jsonschema.ValidationError) *jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return e
	}
	switch e.ErrorKind.(type) {
	case *kind.OneOf, *kind.AnyOf:
		return pickBranch(e)
	case *kind.PropertyNames, *kind.Not, *kind.Contains:
		return e
	}
	leaves := make([]*jsonschema.ValidationError, len(e.Causes))
	for i, cause := range e.Causes {
		leaves[i] = pick(cause)
	}
	return slices.MinFunc(leaves, compare)
}

// pickBranch explains a failed choice: by the branch that came furthest into
// the document, else by the choice itself.
func pickBranch(e *jsonschema.ValidationError) *jsonschema.ValidationError {
	var best *jsonschema.ValidationError
	for _, cause := range e.Causes {
		leaf := pick(cause)
		deeper := len(leaf.InstanceLocation) > len(e.InstanceLocation)
		if deeper && (best == nil || len(leaf.InstanceLocation) > len(best.InstanceLocation) ||
			len(leaf.InstanceLocation) == len(best.InstanceLocation) && compare(leaf, best) < 0) {
			best = leaf
		}
	}
	if best != nil {
		return best
	}
	return e
}

func compare(a, b *jsonschema.ValidationError) int {
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)),
		cmp.Compare(len(a.InstanceLocation), len(b.InstanceLocation)),
		slices.Compare(a.InstanceLocation, b.InstanceLocation),
		strings.Compare(a.SchemaURL, b.SchemaURL),
	)
}

// rank orders offences: a wrong type hides everything below it, an unknown
// field matters least.
func rank(e *jsonschema.ValidationError) int {
	switch e.ErrorKind.(type) {
	case *kind.Type:
		return 0
	case *kind.Required, *kind.DependentRequired:
		return 1
	case *kind.OneOf, *kind.AnyOf:
		return 2
	case *kind.Enum, *kind.Const:
		return 3
	case *kind.AdditionalProperties:
		return 5
	}
	return 4
}

func describe(e *jsonschema.ValidationError) *Error {
	path := ""
	for _, token := range e.InstanceLocation {
		path = appendToken(path, token)
	}
	out := &Error{Code: fault.Malformed, Path: path}
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		out.Reason = "expected " + strings.Join(k.Want, " or ") + ", got " + k.Got
	case *kind.Required:
		out.Path, out.Reason = appendName(path, first(k.Missing)), "is required"
	case *kind.DependentRequired:
		out.Path, out.Reason = appendName(path, first(k.Missing)), "is required together with "+k.Prop
	case *kind.AdditionalProperties:
		out.Path, out.Reason = appendName(path, first(k.Properties)), "unknown field"
	case *kind.PropertyNames:
		out.Path = appendName(ownerOf(e.SchemaURL), k.Property)
		describeName(out, e)
	case *kind.OneOf:
		out.Reason = choice(e, len(k.Subschemas) > 0)
	case *kind.AnyOf:
		out.Reason = choice(e, false)
	default:
		describeLimit(out, e.ErrorKind)
	}
	return out
}

// ownerOf returns the path of the object whose names a schema at url restricts.
// The library's own location of such an error is overwritten by later checks,
// so the path is read off the schema's: …/properties/labels/propertyNames.
func ownerOf(url string) string {
	_, pointer, _ := strings.Cut(url, "#")
	path := ""
	tokens := strings.Split(pointer, "/")
	for i := 1; i < len(tokens); i++ {
		if tokens[i-1] == "properties" {
			path = appendName(path, tokens[i])
		}
	}
	return path
}

// describeName explains a member name by the rule that refused it.
func describeName(out *Error, e *jsonschema.ValidationError) {
	out.Reason = "is not an allowed name"
	if len(e.Causes) == 0 {
		return
	}
	if k, ok := pick(e.Causes[0]).ErrorKind.(*kind.MaxLength); ok {
		out.Code, out.Reason = fault.TooLarge, fmt.Sprintf("has a name of %d characters, at most %d are allowed", k.Got, k.Want)
	}
}

func describeLimit(out *Error, k jsonschema.ErrorKind) {
	tooMany := func(unit string, got, want int) {
		out.Code, out.Reason = fault.TooLarge, fmt.Sprintf("has %d %s, at most %d are allowed", got, unit, want)
	}
	tooFew := func(unit string, want int) {
		out.Reason = fmt.Sprintf("needs at least %d %s", want, unit)
		if want == 1 {
			out.Reason = "must not be empty"
		}
	}
	switch k := k.(type) {
	case *kind.MaxLength:
		tooMany("characters", k.Got, k.Want)
	case *kind.MaxItems:
		tooMany("items", k.Got, k.Want)
	case *kind.MaxProperties:
		tooMany("members", k.Got, k.Want)
	case *kind.MinLength:
		tooFew("characters", k.Want)
	case *kind.MinItems:
		tooFew("items", k.Want)
	case *kind.MinProperties:
		tooFew("members", k.Want)
	case *kind.Enum:
		out.Reason = "expected one of " + literals(k.Want)
	case *kind.Const:
		out.Reason = "expected " + literals([]any{k.Want})
	case *kind.Minimum:
		out.Reason = "must be at least " + rat(k.Want)
	case *kind.Maximum:
		out.Reason = "must be at most " + rat(k.Want)
	case *kind.ExclusiveMinimum:
		out.Reason = "must be greater than " + rat(k.Want)
	case *kind.ExclusiveMaximum:
		out.Reason = "must be less than " + rat(k.Want)
	case *kind.MultipleOf:
		out.Reason = "must be a multiple of " + rat(k.Want)
	case *kind.Pattern:
		out.Reason = "must match " + k.Want
	case *kind.Format:
		out.Reason = "is not a valid " + k.Want
	case *kind.UniqueItems:
		out.Reason = "has equal items"
	default:
		out.Reason = "is not allowed"
	}
}

// choice explains a value that is none, or too many, of the allowed forms.
func choice(e *jsonschema.ValidationError, several bool) string {
	if several {
		return "has more than one of the allowed forms, give exactly one"
	}
	var missing, types []string
	for _, cause := range e.Causes {
		switch k := pick(cause).ErrorKind.(type) {
		case *kind.Required:
			missing = append(missing, k.Missing...)
		case *kind.Type:
			types = append(types, k.Want...)
		}
	}
	switch {
	case len(missing) >= len(e.Causes) && len(types) == 0:
		return "needs one of " + strings.Join(unique(missing), ", ")
	case len(types) >= len(e.Causes) && len(missing) == 0:
		return "expected " + strings.Join(unique(types), " or ")
	}
	return "has none of the allowed forms"
}

func first(names []string) string { return slices.Min(names) }

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// literals prints values of the schema, never of the document.
func literals(values []any) string {
	out := make([]string, len(values))
	for i, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte("a constant")
		}
		out[i] = string(text)
	}
	return strings.Join(out, ", ")
}

func rat(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}
