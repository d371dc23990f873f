package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/schema/api"
)

// session is all about sessions.
func (e *env) session() *cobra.Command {
	c := &cobra.Command{
		Use: "session", Short: "Open, show and forget sessions, which remember what was said", GroupID: "task",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		Example: `  penstock session open chat-7 --instructions "You are brief."
  penstock submit "Why is the sky blue?" --session chat-7 --memory --stream
  penstock session show chat-7`,
	}
	c.AddCommand(e.sessionOpen(), e.sessionShow(), e.sessionDelete())
	return c
}

func (e *env) sessionOpen() *cobra.Command {
	var s api.SessionSettings
	var ttl time.Duration
	c := &cobra.Command{
		Use: "open SESSION", Short: "Open a session, or set anew what it is opened with", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			cl, err := e.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			if ttl > 0 {
				s.TTL = ttl.String()
			}
			out, err := cl.OpenSession(c.Context(), words[0], s)
			if err != nil {
				return err
			}
			return print(e, c.OutOrStdout(), out, []api.Session{out}, sessionRows)
		},
	}
	f := c.Flags()
	f.StringVar(&s.Instructions, "instructions", "", "system message that its tasks begin with")
	f.IntVar(&s.MaxTokens, "max-tokens", 0, "tokens that a task is given of it; 0: the worker's default")
	f.DurationVar(&ttl, "ttl", 0, "its life after the latest turn; 0: as long as results can be read")
	f.StringToStringVarP(&s.Labels, "label", "l", nil, "label, name=value; may be repeated")
	return c
}

func (e *env) sessionShow() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "show SESSION", Short: "Show the newest turns of a session; -o yaml shows all of them and its settings", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			cl, err := e.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			out, err := cl.Session(c.Context(), words[0], limit)
			if err != nil {
				return err
			}
			return print(e, c.OutOrStdout(), out, out.Turns, turnRows)
		},
	}
	c.Flags().IntVar(&limit, "limit", 0, "how many turns; 0: as many as the server shows")
	return c
}

func (e *env) sessionDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete SESSION…", Short: "Forget sessions; their tasks stay what they are", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			cl, err := e.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			for _, id := range words {
				if err := cl.DeleteSession(c.Context(), id); err != nil {
					return fmt.Errorf("%s: %w", id, err)
				}
			}
			return nil
		},
	}
}

func sessionRows(list []api.Session) table {
	t := table{head: []string{"SESSION", "TURNS", "TTL", "EXPIRES"}}
	for _, s := range list {
		t.rows = append(t.rows, []string{s.SessionID, fmt.Sprint(s.TurnCount), s.TTL, s.ExpiresAt.Local().Format(time.DateTime)})
	}
	return t
}

func turnRows(turns []api.Turn) table {
	t := table{head: []string{"TASK", "STATUS", "TOKENS", "AT", "ASKED", "ANSWER"}}
	for _, turn := range turns {
		t.rows = append(t.rows, []string{
			string(turn.TaskID), string(turn.Status), fmt.Sprint(turn.Tokens), turn.At.Local().Format(time.DateTime),
			asked(turn.Messages), brief(said(turn.Answer)),
		})
	}
	return t
}

// asked is the last of some messages, short enough for a line.
func asked(messages json.RawMessage) string {
	var list []json.RawMessage
	if json.Unmarshal(messages, &list) != nil || len(list) == 0 {
		return ""
	}
	return brief(said(list[len(list)-1]))
}

// said is the text of a message that has one.
func said(message json.RawMessage) string {
	var m struct{ Content string }
	_ = json.Unmarshal(message, &m) // parts, tool calls: no text to show
	return m.Content
}

// brief is a text on one line of a table.
func brief(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 60 {
		return string(r[:59]) + "…"
	}
	return text
}
