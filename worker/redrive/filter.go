package redrive

import (
	"strings"
	"time"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
)

// Filter selects dead letters. Empty fields match everything; set ones must
// all match.
type Filter struct {
	Tenant      string                 `json:"tenant,omitempty"`
	Model       string                 `json:"model,omitempty"`
	Pool        string                 `json:"pool,omitempty"`
	Code        fault.Code             `json:"code,omitempty"`
	Disposition deadletter.Disposition `json:"disposition,omitempty"`
	State       LetterState            `json:"state,omitempty"`       // empty: all but discarded ones
	Fingerprint string                 `json:"fingerprint,omitempty"` // of a group
	Since       time.Time              `json:"since,omitzero"`        // dead at or after
	Until       time.Time              `json:"until,omitzero"`        // dead before
	Text        string                 `json:"text,omitempty"`        // in the message, whatever the case
}

// wants reports whether letters in a state are selected. Discarded ones are
// asked for, else they are in nobody's way.
func (f *Filter) wants(s LetterState) bool {
	switch f.State {
	case LetterAny:
		return true
	case "":
		return s != LetterDiscarded
	}
	return f.State == s
}

// matches reports whether l is selected.
func (f *Filter) matches(l *Letter) bool {
	switch {
	case f.Tenant != "" && f.Tenant != l.Tenant,
		f.Model != "" && f.Model != l.Model,
		f.Pool != "" && f.Pool != l.Pool,
		f.Code != "" && f.Code != l.Code,
		f.Disposition != "" && f.Disposition != l.Disposition,
		f.Fingerprint != "" && f.Fingerprint != l.Fingerprint,
		!f.wants(l.State),
		!f.Since.IsZero() && l.DeadAt.Before(f.Since),
		!f.Until.IsZero() && !l.DeadAt.Before(f.Until):
		return false
	}
	return f.Text == "" || strings.Contains(strings.ToLower(l.Message), strings.ToLower(f.Text))
}

// check refuses values that can never match, with the nearest that can.
func (f *Filter) check() error {
	codes := make([]string, 0, 24)
	for _, c := range fault.Codes() {
		codes = append(codes, string(c))
	}
	if err := oneOf("code", string(f.Code), codes); err != nil {
		return err
	}
	dispositions := []string{
		string(deadletter.Exhausted), string(deadletter.Undecodable),
		string(deadletter.SuspectedKiller), string(deadletter.Oversize),
	}
	if err := oneOf("disposition", string(f.Disposition), dispositions); err != nil {
		return err
	}
	if err := oneOf("state", string(f.State), []string{string(LetterDead), string(LetterRedriven), string(LetterDiscarded), string(LetterAny)}); err != nil {
		return err
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return badRequest("since", "since must be before until")
	}
	return nil
}
