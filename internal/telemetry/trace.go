package telemetry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// HeaderTraceParent is the W3C header, in HTTP and in Kafka records alike.
const HeaderTraceParent = "traceparent"

// traceParentKey is the context key of the trace parent.
type traceParentKey struct{}

// WithTraceParent returns a context that carries a trace parent. A value that
// is not a valid one is ignored, so what comes off the wire can be passed as is.
func WithTraceParent(ctx context.Context, s string) context.Context {
	if !ValidTraceParent(s) {
		return ctx
	}
	return context.WithValue(ctx, traceParentKey{}, s)
}

// TraceParent returns the trace parent that ctx carries, or "".
func TraceParent(ctx context.Context) string {
	s, _ := ctx.Value(traceParentKey{}).(string)
	return s
}

// NewTraceParent starts a trace. It is marked as sampled: whoever exports spans
// later decides what to keep.
func NewTraceParent() string {
	return "00-" + randomHex(16) + "-" + randomHex(8) + "-01"
}

// ChildTraceParent returns a new span in the trace of parent, or a new trace if
// parent is not valid.
func ChildTraceParent(parent string) string {
	if !ValidTraceParent(parent) {
		return NewTraceParent()
	}
	return "00-" + parent[3:35] + "-" + randomHex(8) + "-" + parent[53:55]
}

// TraceID returns the 32 hex digits that name the trace, or "".
func TraceID(parent string) string {
	if !ValidTraceParent(parent) {
		return ""
	}
	return parent[3:35]
}

// ValidTraceParent checks s as W3C Trace Context level 2 asks: version 00 is
// exactly 55 characters, a later version may go on after another dash, version
// ff and all-zero ids are invalid, and hex is lower case.
func ValidTraceParent(s string) bool {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	version, trace, span, flags := s[:2], s[3:35], s[36:52], s[53:55]
	if len(s) > 55 && (version == "00" || s[55] != '-') {
		return false
	}
	return version != "ff" && isHex(version+trace+span+flags) && !isZero(trace) && !isZero(span)
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

func isZero(s string) bool { return strings.Trim(s, "0") == "" }

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the process instead
	return hex.EncodeToString(b)
}
