package validate

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/schema/fault"
)

// Error is one fault of a body: the first in the text for the strict pass, the
// worst one for a schema.
type Error struct {
	Code   fault.Code // fault.Malformed, or fault.TooLarge for more than a limit allows
	Path   string     // JSON path such as payload.messages[0].role; empty: the whole body
	Offset int64      // byte offset in the body; -1 from a schema, which has lost it
	Reason string     // such as "expected string, got number"
}

// Error returns one sentence: the path, or "body", and the reason.
func (e *Error) Error() string {
	where := e.Path
	if where == "" {
		where = "body"
	}
	if e.Offset < 0 {
		return where + ": " + e.Reason
	}
	return where + ": " + e.Reason + " at byte " + strconv.FormatInt(e.Offset, 10)
}

// Bounds in bytes of a path and of one member name inside it: names are the
// caller's, and a message is no place for a megabyte of them.
const (
	maxPath     = 256
	maxPathName = 64
)

// appendName adds a member name to a path: plain names with a dot, others
// quoted in brackets.
func appendName(path, name string) string {
	name = cut(name, maxPathName)
	switch {
	case len(path)+len(name) > maxPath:
		return closed(path)
	case !plainName(name):
		return path + "[" + strconv.Quote(name) + "]"
	case path == "":
		return name
	}
	return path + "." + name
}

func plainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') && c < utf8.RuneSelf {
			return false
		}
	}
	return name != ""
}

func appendIndex(path, index string) string {
	if len(path)+len(index) > maxPath-2 {
		return closed(path)
	}
	return path + "[" + index + "]"
}

// closed marks a path that goes on deeper than it may be long.
func closed(path string) string {
	if strings.HasSuffix(path, "…") {
		return path
	}
	return path + "…"
}

// cut shortens s to at most n bytes and a mark, without splitting a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// appendToken adds a token whose container is not known: digits are taken for
// an index.
func appendToken(path, token string) string {
	if token != "" && strings.Trim(token, "0123456789") == "" {
		return appendIndex(path, token)
	}
	return appendName(path, token)
}
