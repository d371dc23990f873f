package redrive

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/penstock/penstock/schema/fault"
)

// failure is an answer of the admin API that is not a success.
type failure struct {
	status  int
	code    fault.Code
	message string // cause and cure
	param   string // what was wrong, if one thing was
	retry   int    // Retry-After in seconds, 0: none
}

// Error implements error.
func (f *failure) Error() string { return f.message }

func badRequest(param, format string, args ...any) *failure {
	return &failure{status: http.StatusBadRequest, code: fault.Malformed, message: fmt.Sprintf(format, args...), param: param}
}

func notFound(format string, args ...any) *failure {
	return &failure{status: http.StatusNotFound, code: fault.NotFound, message: fmt.Sprintf(format, args...)}
}

func unavailable(format string, args ...any) *failure {
	return &failure{status: http.StatusServiceUnavailable, code: fault.Unavailable, message: fmt.Sprintf(format, args...), retry: 2}
}

// oneOf refuses a value that is none of the known, and names the nearest.
// Empty is fine.
func oneOf(name, value string, known []string) error {
	if value == "" || slices.Contains(known, value) {
		return nil
	}
	return badRequest(name, "%s is unknown: %q%s; known are %s", name, clipped(value), suggestion(value, known), strings.Join(known, ", "))
}

// suggestion is a "did you mean" for a mistyped name, or empty.
func suggestion(name string, known []string) string {
	best, least := "", len(name)/3+2
	for _, k := range known {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// maxName bounds the names that are compared and repeated in answers.
const maxName = 64

func clipped(s string) string {
	if len(s) > maxName {
		return strings.ToValidUTF8(s[:maxName], "") + "…"
	}
	return s
}

// distance is Levenshtein's, on bytes of lower case.
func distance(a, b string) int {
	a, b = strings.ToLower(clipped(a)), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
