package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// submission is what `submit` was told.
type submission struct {
	file, model, class, key string
	session                 string
	labels                  map[string]string
	maxTokens               int
	memory, stream, wait    bool
	timeout                 time.Duration
}

func (e *env) submit() *cobra.Command {
	var s submission
	c := &cobra.Command{
		Use:   "submit [TEXT]",
		Short: "Submit a task: text, or request bodies from a file of JSON lines",
		Example: `  penstock submit "Why is the sky blue?" --stream
  penstock submit -f tasks.jsonl -o jsonl
  echo '{"model":"sim-chat","payload":{"text":"hi"}}' | penstock submit -f - --wait`,
		GroupID: "task",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			requests, err := s.requests(c.InOrStdin(), words)
			if err != nil {
				return err
			}
			return e.runSubmit(c, s, requests)
		},
	}
	f := c.Flags()
	f.StringVarP(&s.file, "file", "f", "", "file of request bodies, one JSON object a line; - is stdin")
	f.StringVarP(&s.model, "model", "m", "", "model; default: what the routing rules find")
	f.StringVar(&s.class, "class", "", "interactive, standard or bulk")
	f.StringToStringVarP(&s.labels, "label", "l", nil, "label, name=value; may be repeated")
	f.IntVar(&s.maxTokens, "max-tokens", 0, "bound of the answer; 0: the backend's default")
	f.StringVar(&s.session, "session", "", "conversation it belongs to: its tasks run one after another")
	f.BoolVar(&s.memory, "memory", false, "give the model what was said before in the session")
	f.StringVar(&s.key, "idempotency-key", "", "repeat the submit safely under this key (with TEXT)")
	f.BoolVar(&s.stream, "stream", false, "print the answer as it is made")
	f.BoolVar(&s.wait, "wait", false, "wait for the end and print the answer")
	f.DurationVar(&s.timeout, "timeout", 5*time.Minute, "how long --stream and --wait wait")
	c.MarkFlagsMutuallyExclusive("stream", "wait")
	return c
}

// requests builds the bodies from the text or the file.
func (s submission) requests(stdin io.Reader, words []string) ([]api.SubmitRequest, error) {
	switch {
	case len(words) == 1 && s.file == "":
		return []api.SubmitRequest{s.fill(api.SubmitRequest{Payload: task.Payload{Text: words[0]}})}, nil
	case len(words) == 1 || s.file == "":
		return nil, &lifecycle.UsageError{Err: errors.New("give either TEXT or --file")}
	case s.key != "":
		return nil, &lifecycle.UsageError{Err: errors.New("--idempotency-key names one task: it needs TEXT")}
	case s.file == "-":
		return s.read(stdin)
	}
	f, err := os.Open(s.file)
	if err != nil {
		return nil, &lifecycle.UsageError{Err: err}
	}
	defer f.Close()
	return s.read(f)
}

// maxLine is the longest request in a file of JSON lines. The server has its own
// limit, and says so.
const maxLine = 256 << 20

// read checks every line before the first task is sent.
func (s submission) read(r io.Reader) ([]api.SubmitRequest, error) {
	var out []api.SubmitRequest
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var req api.SubmitRequest
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			return nil, &lifecycle.UsageError{Err: fmt.Errorf("line %d: %w", n, err)}
		}
		out = append(out, s.fill(req))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	if len(out) == 0 {
		return nil, &lifecycle.UsageError{Err: errors.New("no task to submit: the file is empty")}
	}
	return out, nil
}

// fill sets what the flags say and the body does not.
func (s submission) fill(r api.SubmitRequest) api.SubmitRequest {
	if r.Model == "" {
		r.Model = s.model
	}
	if r.Class == "" {
		r.Class = task.Class(s.class)
	}
	if r.SessionID == "" {
		r.SessionID = s.session
	}
	r.Memory = r.Memory || s.memory
	if r.Labels == nil {
		r.Labels = s.labels
	}
	if _, ok := r.Params["max_tokens"]; !ok && s.maxTokens > 0 {
		if r.Params == nil {
			r.Params = task.Params{}
		}
		r.Params["max_tokens"] = json.RawMessage(fmt.Sprint(s.maxTokens))
	}
	r.Stream = r.Stream || s.stream
	return r
}

func (e *env) runSubmit(c *cobra.Command, s submission, requests []api.SubmitRequest) error {
	cl, err := e.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	accepted, err := submitAll(c.Context(), cl, requests, s.key)
	if err != nil {
		return err
	}
	ids := make([]task.ID, len(accepted))
	for i, a := range accepted {
		ids[i] = a.TaskID
	}
	switch {
	case s.stream && len(ids) == 1:
		return e.follow(c, cl, ids[0], event.ID{}, s.timeout)
	case s.stream, s.wait:
		return e.await(c, cl, ids, s.timeout)
	}
	return print(e, c.OutOrStdout(), accepted, accepted, acceptedRows)
}

// submitAll sends one task alone, many in batches. The first refused one is
// the error: nothing of a file with a mistake should go unnoticed.
func submitAll(ctx context.Context, cl *client.Client, requests []api.SubmitRequest, key string) ([]api.Accepted, error) {
	if len(requests) == 1 {
		a, err := cl.Submit(ctx, requests[0], key)
		return []api.Accepted{a}, err
	}
	var out []api.Accepted
	for start := 0; start < len(requests); start += api.MaxBatch {
		part := requests[start:min(start+api.MaxBatch, len(requests))]
		res, err := cl.SubmitBatch(ctx, part)
		if err != nil {
			return out, fmt.Errorf("%d of %d tasks accepted, then: %w", len(out), len(requests), err)
		}
		for _, item := range res.Items {
			if item.Error != nil {
				return out, fmt.Errorf("task %d: %d %s: %s", start+item.Index+1, item.Code, item.Error.Type, item.Error.Message)
			}
			out = append(out, *item.Accepted)
		}
	}
	return out, nil
}

func acceptedRows(list []api.Accepted) table {
	t := table{head: []string{"TASK", "STATUS", "EVENTS"}}
	for _, a := range list {
		t.rows = append(t.rows, []string{string(a.TaskID), string(a.Status), a.EventsURL})
	}
	return t
}

func (e *env) get() *cobra.Command {
	return &cobra.Command{
		Use: "get TASK…", Short: "Show tasks", GroupID: "task", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			return e.withTasks(c, words, func(ctx context.Context, cl *client.Client, id task.ID) (api.Task, error) {
				return cl.Task(ctx, id, 0)
			})
		},
	}
}

func (e *env) cancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel TASK…", Short: "Stop tasks, queued or running", GroupID: "task", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			return e.withTasks(c, words, func(ctx context.Context, cl *client.Client, id task.ID) (api.Task, error) {
				t, _, err := cl.Cancel(ctx, id)
				return t, err
			})
		},
	}
}

// withTasks calls do for each id and prints the tasks it returned.
func (e *env) withTasks(c *cobra.Command, words []string, do func(context.Context, *client.Client, task.ID) (api.Task, error)) error {
	cl, err := e.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	var out []api.Task
	for _, w := range words {
		t, err := do(c.Context(), cl, task.ID(w))
		if err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
		out = append(out, t)
	}
	return e.printTasks(c, out)
}

func (e *env) printTasks(c *cobra.Command, tasks []api.Task) error {
	if len(tasks) == 1 {
		return print(e, c.OutOrStdout(), tasks[0], tasks, taskRows)
	}
	return print(e, c.OutOrStdout(), tasks, tasks, taskRows)
}

func taskRows(tasks []api.Task) table {
	t := table{head: []string{"TASK", "STATUS", "GEN", "MODEL", "TRIES", "TOOK", "ANSWER"}}
	for _, v := range tasks {
		t.rows = append(t.rows, []string{
			string(v.TaskID), string(v.Status), fmt.Sprint(v.Generation), v.Model,
			fmt.Sprint(len(v.Attempts)), took(v), answer(v),
		})
	}
	return t
}

// listRows has no answers: a list does not carry them.
func listRows(tasks []api.Task) table {
	t := table{head: []string{"TASK", "STATUS", "GEN", "MODEL", "CLASS", "CREATED", "TOOK"}}
	for _, v := range tasks {
		created := "-"
		if v.CreatedAt != nil {
			created = v.CreatedAt.Local().Format(time.DateTime)
		}
		t.rows = append(t.rows, []string{
			string(v.TaskID), string(v.Status), fmt.Sprint(v.Generation), v.Model, string(v.Class), created, took(v),
		})
	}
	return t
}

func took(t api.Task) string {
	if t.CreatedAt == nil || t.EndedAt == nil {
		return "-"
	}
	return t.EndedAt.Sub(*t.CreatedAt).Round(time.Millisecond).String()
}

// answer is the output or the error, short enough for a line.
func answer(t api.Task) string {
	text := ""
	switch {
	case t.Error != nil:
		text = string(t.Error.Code) + ": " + t.Error.Message
	case t.Output != nil:
		text = t.Output.Text
	}
	return brief(text)
}

func (e *env) wait() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use: "wait TASK…", Short: "Wait until tasks have ended; exit 3 if one did not succeed", GroupID: "task",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			cl, err := e.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			ids := make([]task.ID, len(words))
			for i, w := range words {
				ids[i] = task.ID(w)
			}
			return e.await(c, cl, ids, timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return c
}

// await waits for all tasks, prints them, and fails if one did not succeed.
func (e *env) await(c *cobra.Command, cl *client.Client, ids []task.ID, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(c.Context(), timeout)
	defer cancel()
	var out []api.Task
	failed := 0
	for _, id := range ids {
		t, err := cl.Wait(ctx, id)
		if err != nil {
			return err
		}
		if t.Status != task.Succeeded {
			failed++
		}
		out = append(out, t)
	}
	if err := e.printTasks(c, out); err != nil {
		return err
	}
	if failed > 0 {
		return &exitError{fmt.Errorf("%d of %d tasks did not succeed", failed, len(ids)), ExitTaskFailed}
	}
	return nil
}

func (e *env) tail() *cobra.Command {
	var after string
	var timeout time.Duration
	c := &cobra.Command{
		Use: "tail TASK", Short: "Follow a task's events until it ends, resuming when the connection breaks", GroupID: "task",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, words []string) error {
			from := event.ID{}
			if after != "" {
				id, err := event.ParseID(after)
				if err != nil {
					return &lifecycle.UsageError{Err: fmt.Errorf("--after %q: %w", after, err)}
				}
				from = id
			}
			cl, err := e.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			return e.follow(c, cl, task.ID(words[0]), from, timeout)
		},
	}
	c.Flags().StringVar(&after, "after", "", "resume after this event id")
	c.Flags().DurationVar(&timeout, "timeout", 24*time.Hour, "how long to follow")
	return c
}

// follow prints a task's events: the text as it comes for people, each event
// as a line of JSON otherwise.
func (e *env) follow(c *cobra.Command, cl *client.Client, id task.ID, after event.ID, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(c.Context(), timeout)
	defer cancel()
	out, notes := c.OutOrStdout(), c.ErrOrStderr()
	var end event.Event
	var text client.Text
	err := cl.Tail(ctx, id, after, func(ev event.Event) error {
		end = ev
		if e.output != "table" {
			return json.NewEncoder(out).Encode(ev)
		}
		if !after.IsZero() && ev.Type.Terminal() {
			ev.Result = nil // the whole text is not what was asked for
		}
		return showEvent(out, notes, &text, ev)
	})
	if err != nil {
		return err
	}
	if end.Type.Terminal() && end.Type != event.Succeeded {
		return &exitError{fmt.Errorf("task %s: %s", id, reasonOf(end)), ExitTaskFailed}
	}
	return nil
}

// showEvent prints what an event adds to the text.
func showEvent(out, notes io.Writer, text *client.Text, ev event.Event) error {
	piece, anew := text.Add(ev)
	switch {
	case ev.Type == event.Restart:
		fmt.Fprintf(notes, "\n[restart: %s]\n", ev.Reason)
	case ev.Type == event.Gap:
		fmt.Fprintln(notes, "\n[gap: some of the text is missing above; the end has all of it]")
	case anew:
		fmt.Fprintln(notes, "\n[the whole text]")
	}
	if ev.Type.Terminal() {
		piece += "\n"
	}
	_, err := io.WriteString(out, piece)
	return err
}

func reasonOf(ev event.Event) string {
	if ev.Result != nil && ev.Result.Error != nil {
		return fmt.Sprintf("%s: %s: %s", ev.Type, ev.Result.Error.Code, ev.Result.Error.Message)
	}
	return string(ev.Type)
}

func (e *env) list() *cobra.Command {
	var f client.Filter
	var status string
	var all bool
	c := &cobra.Command{
		Use: "list", Short: "List tasks, newest first", GroupID: "task", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			f.Status = task.Status(status)
			if all {
				return e.listAll(c, cl, f)
			}
			page, err := cl.List(c.Context(), f)
			if err != nil {
				return err
			}
			if err := print(e, c.OutOrStdout(), page, page.Tasks, listRows); err != nil {
				return err
			}
			if page.After != "" {
				fmt.Fprintln(c.ErrOrStderr(), "more: --after", page.After)
			}
			return nil
		},
	}
	c.Flags().StringVar(&status, "status", "", "only this status")
	c.Flags().StringVar(&f.Model, "model", "", "only this model")
	c.Flags().StringVar(&f.Label, "label", "", "only this label, name=value")
	c.Flags().StringVar(&f.After, "after", "", "cursor that the last page ended with")
	c.Flags().IntVar(&f.Limit, "limit", 50, "tasks on a page")
	c.Flags().BoolVar(&all, "all", false, "every page, as one")
	return c
}

// listAll prints every page as one.
func (e *env) listAll(c *cobra.Command, cl *client.Client, f client.Filter) error {
	f.Limit = api.MaxList
	var tasks []api.Task
	for t, err := range cl.All(c.Context(), f) {
		if err != nil {
			return err
		}
		tasks = append(tasks, t)
	}
	return print(e, c.OutOrStdout(), tasks, tasks, listRows)
}
