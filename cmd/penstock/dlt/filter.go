package dlt

import (
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/worker/redrive"
)

// selection is the filter as flags. The server checks the values, so that the
// list of codes is kept in one place.
type selection struct {
	tenant, model, pool, code, disposition, group, text, state string
	since, until                                               string
}

func (s *selection) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.tenant, "tenant", "", "of this tenant")
	f.StringVar(&s.model, "model", "", "for this model")
	f.StringVar(&s.pool, "pool", "", "of this pool")
	f.StringVar(&s.code, "code", "", "that died of this fault code, as timeout or unavailable")
	f.StringVar(&s.disposition, "disposition", "", "exhausted, undecodable, suspected_killer or oversize")
	f.StringVar(&s.group, "group", "", "of this group, by its `fingerprint` (see dlt groups)")
	f.StringVar(&s.text, "text", "", "with this text in the message")
	f.StringVar(&s.since, "since", "", "dead since then: a time (RFC 3339) or how long ago, as 2h")
	f.StringVar(&s.until, "until", "", "dead before then, likewise")
}

// filter returns the selection as the API has it.
func (s *selection) filter(now time.Time) (redrive.Filter, error) {
	since, err := moment("since", s.since, now)
	if err != nil {
		return redrive.Filter{}, err
	}
	until, err := moment("until", s.until, now)
	if err != nil {
		return redrive.Filter{}, err
	}
	return redrive.Filter{
		Tenant: s.tenant, Model: s.model, Pool: s.pool, Code: fault.Code(s.code),
		Disposition: deadletter.Disposition(s.disposition), State: redrive.LetterState(s.state), Fingerprint: s.group,
		Since: since, Until: until, Text: s.text,
	}, nil
}

// empty reports whether nothing was selected by flags.
func (s *selection) empty() bool { return *s == selection{} }

// query returns the selection as parameters of a list.
func (s *selection) query(now time.Time) (url.Values, error) {
	f, err := s.filter(now)
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	for name, value := range map[string]string{
		"tenant": f.Tenant, "model": f.Model, "pool": f.Pool, "code": string(f.Code), "disposition": string(f.Disposition),
		"state": string(f.State), "fingerprint": f.Fingerprint, "text": f.Text, "since": stamp(f.Since), "until": stamp(f.Until),
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q, nil
}

// moment reads a time, or a duration before now.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, usageError("--%s %q: want a time like 2026-11-21T12:00:00Z or how long ago, like 90m", flag, text)
	}
	return t.UTC(), nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
