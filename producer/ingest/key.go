package ingest

import (
	"strconv"
	"strings"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// Key reads what a caller sends as its Idempotency-Key: a structured-field
// string as the IETF draft has it ("…" with \" and \\), or a plain token as most
// clients send it. Without one it is empty.
func Key(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", badKey("is given more than once")
	}
	key, ok := strings.TrimSpace(values[0]), true
	if strings.HasPrefix(key, `"`) {
		key, ok = unquote(key)
	} else {
		ok = !strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == ',' })
	}
	switch {
	case !ok:
		return "", badKey(`is neither a quoted string nor a plain token`)
	case key == "":
		return "", badKey("is empty")
	case len(key) > api.MaxName:
		return "", &validate.Error{
			Code: fault.TooLarge, Path: "Idempotency-Key", Offset: -1,
			Reason: "has " + strconv.Itoa(len(key)) + " bytes, at most " + strconv.Itoa(api.MaxName) + " are allowed",
		}
	}
	return key, nil
}

// unquote reads an sf-string (RFC 9651, section 3.3.3) that is the whole value.
func unquote(s string) (string, bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), i == len(s)-1
		case c == '\\':
			i++
			if i >= len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
			b.WriteByte(s[i])
		case c < ' ' || c > '~':
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

func badKey(reason string) error {
	return &validate.Error{Code: fault.Malformed, Path: "Idempotency-Key", Offset: -1, Reason: reason}
}
