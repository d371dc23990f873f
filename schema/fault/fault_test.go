package fault_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/fault"
)

func TestEveryCodeHasOneRule(t *testing.T) {
	declared := declarations(t)
	var want []fault.Code
	for _, c := range declared {
		want = append(want, c.code)
	}
	if diff := cmp.Diff(want, fault.Codes()); diff != "" {
		t.Errorf("Codes() lists each declared code once and in order (-declared +listed):\n%s", diff)
	}
	classes := []fault.Class{fault.ClassTask, fault.ClassSystem, fault.ClassPermanent, fault.ClassLost, fault.ClassNone}
	nexts := []fault.Next{fault.NextRetry, fault.NextRequeue, fault.NextFail, fault.NextDeadLetter, fault.NextEnd, fault.NextDrop}
	for _, c := range declared {
		r := fault.RuleOf(c.code)
		if r.Code != c.code || !slices.Contains(classes, r.Class) || !slices.Contains(nexts, r.Next) || r.Status < 400 || r.Status > 599 {
			t.Errorf("rule of %s: %+v", c.code, r)
		}
	}
}

func TestRulesAgreeWithTheirClass(t *testing.T) {
	for _, c := range fault.Codes() {
		r := fault.RuleOf(c)
		tries := r.Next == fault.NextRetry
		switch r.Class {
		case fault.ClassTask, fault.ClassSystem, fault.ClassLost:
			if !tries {
				t.Errorf("%s is of class %s and is not tried again: %s", c, r.Class, r.Next)
			}
		case fault.ClassPermanent, fault.ClassNone:
			if tries || r.Breaker {
				t.Errorf("%s is of class %s: a retry or a breaker is out of place: %+v", c, r.Class, r)
			}
		}
	}
}

func TestAnUnknownCodeIsInternal(t *testing.T) {
	for _, c := range []fault.Code{"", "weather", "Internal"} {
		if got := fault.RuleOf(c); got != fault.RuleOf(fault.Internal) || got.Code != fault.Internal {
			t.Errorf("RuleOf(%q) = %+v", c, got)
		}
	}
}

func TestAFailureKeepsItsCodeThroughWrapping(t *testing.T) {
	limit := &fault.Error{Code: fault.Throttled, RetryAfter: 3 * time.Second}
	refused := &fault.Error{Code: fault.Unavailable, Class: fault.ClassSystem, Err: io.ErrUnexpectedEOF}
	for name, c := range map[string]struct {
		err   error
		code  fault.Code
		class fault.Class
		wait  time.Duration
	}{
		"as it is":             {limit, fault.Throttled, fault.ClassSystem, 3 * time.Second},
		"wrapped twice":        {fmt.Errorf("run batch: %w", fmt.Errorf("call: %w", limit)), fault.Throttled, fault.ClassSystem, 3 * time.Second},
		"joined":               {errors.Join(io.EOF, limit), fault.Throttled, fault.ClassSystem, 3 * time.Second},
		"with its own class":   {fmt.Errorf("call: %w", refused), fault.Unavailable, fault.ClassSystem, 0},
		"with its code's":      {fault.New(fault.Unavailable, "503"), fault.Unavailable, fault.ClassTask, 0},
		"the outermost counts": {&fault.Error{Code: fault.Timeout, Err: refused}, fault.Timeout, fault.ClassTask, 0},
		"nobody classified it": {fmt.Errorf("call: %w", io.EOF), fault.Internal, fault.ClassTask, 0},
		"an unknown code":      {fault.New("weather", "rain"), "weather", fault.ClassTask, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fault.CodeOf(c.err); got != c.code {
				t.Errorf("CodeOf = %s, want %s", got, c.code)
			}
			if got := fault.ClassOf(c.err); got != c.class {
				t.Errorf("ClassOf = %s, want %s", got, c.class)
			}
			if got := fault.RetryAfterOf(c.err); got != c.wait {
				t.Errorf("RetryAfterOf = %v, want %v", got, c.wait)
			}
		})
	}
	if !errors.Is(refused, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
}

func TestAnErrorSaysWhatItKnows(t *testing.T) {
	for want, err := range map[string]*fault.Error{
		"timeout":                       {Code: fault.Timeout},
		"timeout: after 30s":            fault.New(fault.Timeout, "after %s", 30*time.Second),
		"timeout: EOF":                  {Code: fault.Timeout, Err: io.EOF},
		"timeout: no answer: EOF":       {Code: fault.Timeout, Message: "no answer", Err: io.EOF},
		"throttled: limit is 5 (100 %)": fault.New(fault.Throttled, "limit is %d (100 %%)", 5),
	} {
		if got := err.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
	}
}
