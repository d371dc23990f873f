package dlt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/worker/redrive"
)

const lettersPath = "/admin/v1/dead-letters"

// pageSize is what one request asks for; longer lists take several.
const pageSize = 500

func (p Params) list() *cobra.Command {
	var s selection
	var limit int
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List dead letters, newest first", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 {
				return usageError("--limit %d: want at least 1", limit)
			}
			return p.with(func(cl *client.Client) error { return p.runList(c, cl, &s, limit) })
		},
	}
	s.flags(c)
	c.Flags().StringVar(&s.state, "state", "", "dead, redriven, discarded or any; default: all but discarded")
	c.Flags().IntVar(&limit, "limit", 50, "letters at most")
	return c
}

func (p Params) runList(c *cobra.Command, cl *client.Client, s *selection, limit int) error {
	q, err := s.query(time.Now())
	if err != nil {
		return err
	}
	var all redrive.LetterList
	for len(all.Letters) < limit {
		q.Set("limit", strconv.Itoa(min(pageSize, limit-len(all.Letters))))
		page, err := client.Operate[redrive.LetterList](c.Context(), cl, http.MethodGet, lettersPath, q, nil)
		if err != nil {
			return err
		}
		page.Letters = append(all.Letters, page.Letters...)
		all = page
		if all.After == "" {
			break
		}
		q.Set("after", all.After)
	}
	if err := p.PrintFunc(c.OutOrStdout(), all, items(all.Letters), letterTable(all.Letters)); err != nil {
		return err
	}
	note(c.ErrOrStderr(), &all)
	return nil
}

// note says what the list does not show.
func note(w io.Writer, l *redrive.LetterList) {
	if n := l.Total - len(l.Letters); n > 0 {
		fmt.Fprintf(w, "%d more match; raise --limit\n", n)
	}
	if !l.Complete {
		fmt.Fprintln(w, "the worker is still reading the dead-letter topic: the list is incomplete")
	}
	if l.Evicted > 0 {
		fmt.Fprintf(w, "%d older letters fell out of the worker's index and are not listed; `dlt show PARTITION-OFFSET` still finds them\n", l.Evicted)
	}
}

func letterTable(letters []redrive.Letter) Table {
	t := Table{Head: []string{"ID", "DIED", "STATE", "CODE", "DISPOSITION", "MODEL", "TENANT", "TRIES", "GEN", "REDRIVABLE UNTIL", "TASK", "MESSAGE"}}
	for _, l := range letters {
		t.Rows = append(t.Rows, []string{
			l.ID.String(), local(l.DeadAt), string(l.State), string(l.Code), string(l.Disposition), plain(dash(l.Model)),
			plain(dash(l.Tenant)), strconv.Itoa(l.Attempts), strconv.Itoa(int(l.Generation)), until(&l), dash(string(l.TaskID)), clip(l.Message, 60),
		})
	}
	return t
}

// until is how long a letter can be redriven.
func until(l *redrive.Letter) string {
	switch {
	case l.State == redrive.LetterRedriven:
		return "-"
	case !l.RedrivableUntil.IsZero() && time.Now().After(l.RedrivableUntil):
		return "too late"
	}
	return dash(local(l.RedrivableUntil))
}

func (p Params) groups() *cobra.Command {
	var s selection
	c := &cobra.Command{
		Use: "groups", Short: "Count dead letters by what they died of", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			q, err := s.query(time.Now())
			if err != nil {
				return err
			}
			return p.with(func(cl *client.Client) error {
				g, err := client.Operate[redrive.GroupList](c.Context(), cl, http.MethodGet, lettersPath+"/groups", q, nil)
				if err != nil {
					return err
				}
				return p.PrintFunc(c.OutOrStdout(), g, items(g.Groups), groupTable(g.Groups))
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&s.state, "state", string(redrive.LetterDead), "dead, redriven, discarded or any")
	return c
}

func groupTable(groups []redrive.Group) Table {
	t := Table{Head: []string{"GROUP", "COUNT", "CODE", "MODEL", "FIRST", "LAST", "EXAMPLE", "MESSAGE"}}
	for _, g := range groups {
		t.Rows = append(t.Rows, []string{g.Fingerprint, strconv.Itoa(g.Count), string(g.Code), plain(dash(g.Model)), local(g.First), local(g.Last), g.Example.String(), clip(g.Message, 60)})
	}
	return t
}

func (p Params) show() *cobra.Command {
	var payload bool
	c := &cobra.Command{
		Use: "show ID", Short: "Show one dead letter, by its id or its task's",
		Example: "  penstock dlt show 3-1207\n  penstock dlt show task_… --payload -o json",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			q := url.Values{}
			if payload {
				q.Set("payload", "true")
			}
			return p.with(func(cl *client.Client) error {
				d, err := client.Operate[redrive.Detail](c.Context(), cl, http.MethodGet, lettersPath+"/"+url.PathEscape(words[0]), q, nil)
				if err != nil {
					return err
				}
				return p.PrintFunc(c.OutOrStdout(), d, []any{d}, detailTable(&d))
			})
		},
	}
	c.Flags().BoolVar(&payload, "payload", false, "show the task's payload and every header; default: redacted")
	return c
}

func detailTable(d *redrive.Detail) Table {
	var t Table
	row := func(name, value string) {
		if value != "" {
			t.Rows = append(t.Rows, []string{plain(name), plain(value)})
		}
	}
	row("id", d.ID.String())
	row("task", string(d.TaskID))
	row("state", string(d.State))
	row("redriven by", d.RedrivenBy)
	if d.Discarded != nil {
		row("discarded", fmt.Sprintf("%s by %s: %s", local(d.Discarded.At), dash(d.Discarded.By), d.Discarded.Reason))
	}
	if d.State == redrive.LetterDead {
		row("not redrivable", string(d.Refused))
	}
	row("redrivable until", until(&d.Letter))
	row("code", string(d.Code))
	row("disposition", string(d.Disposition))
	row("message", d.Message)
	row("tenant", d.Tenant)
	row("model", d.Model)
	row("pool, class", d.Pool+", "+string(d.Class))
	row("died", local(d.DeadAt))
	row("deadline", local(d.Deadline))
	row("generation", strconv.Itoa(int(d.Generation)))
	row("from job", d.RedriveJob)
	row("origin", fmt.Sprintf("%s/%d@%d", d.Origin.Topic, d.Origin.Partition, d.Origin.Offset))
	row("group", d.Fingerprint)
	row("payload", fmt.Sprintf("%d bytes, sha256 %s", d.Bytes, dash(d.SHA256)))
	for _, a := range d.History {
		row(fmt.Sprintf("attempt %d", a.N), fmt.Sprintf("%s  %s  %s  %s", local(a.StartedAt), dash(a.Backend), dash(a.Code), clip(a.Message, 80)))
	}
	for _, h := range d.Headers {
		row("header "+h.Key, clip(h.Value, 120))
	}
	if d.Redacted {
		row("value", "(redacted; show it with --payload)")
	}
	row("value", pretty(d.Value))
	row("value (base64)", d.ValueBase64)
	return t
}

func pretty(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// local shows a time on the reader's clock.
func local(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// clip cuts s to n characters.
func clip(s string, n int) string {
	out := []rune(plain(s))
	if len(out) > n {
		return string(out[:n-1]) + "…"
	}
	return string(out)
}

// plain takes out what could steer a terminal: messages and payloads are other
// people's text.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
