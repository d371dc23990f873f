package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// caller makes calls of the OpenAI API, to an engine or to the ingress alike.
type caller struct{ http *http.Client }

func newCaller() *caller { return &caller{http: newHTTP()} }

func (c *caller) close() { c.http.CloseIdleConnections() }

// chat is the conversation of every call.
const chat = `[{"role":"user","content":"Tell me when."}]`

// post asks for a chat's answer. Any status but 200 is an error.
func (c *caller) post(ctx context.Context, base string, tokens int, stream bool) (*http.Response, error) {
	body := fmt.Sprintf(`{"model":%q,"messages":%s,"max_tokens":%d,"stream":%t}`, simulated.ChatModel, chat, tokens, stream)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // the status says enough
		return nil, fmt.Errorf("%s: %s", res.Status, text)
	}
	return res, nil
}

// plain makes one call that is not streamed.
func (c *caller) plain(ctx context.Context, base string) error {
	res, err := c.post(ctx, base, fewTokens, false)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// streamed is the asker of a base URL.
func (c *caller) streamed(base string, tokens int) asker {
	return func(ctx context.Context, hear func(string) error) error {
		res, err := c.post(ctx, base, tokens, true)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		return readChat(res.Body, hear)
	}
}

// chatChunk is what the benchmark reads of a chunk.
type chatChunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
	Error json.RawMessage `json:"error"`
}

var errCutShort = errors.New("the stream ended before its answer did")

// readChat reads a streamed chat to its end.
func readChat(r io.Reader, hear func(text string) error) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		if string(data) == "[DONE]" {
			_, err := io.Copy(io.Discard, r) // read to its end, a connection is used again
			return err
		}
		var chunk chatChunk
		if err := json.Unmarshal(data, &chunk); err != nil {
			return fmt.Errorf("decode chunk: %w", err)
		}
		if chunk.Error != nil {
			return fmt.Errorf("the stream failed: %s", chunk.Error)
		}
		for _, choice := range chunk.Choices {
			if err := hear(choice.Delta.Content); err != nil {
				return err
			}
		}
	}
	return errors.Join(errCutShort, lines.Err())
}

// native is the asker that submits a task and follows its events.
func native(c *client.Client, tokens int) asker {
	submit := api.SubmitRequest{
		Model: simulated.ChatModel, Payload: task.Payload{Messages: []byte(chat)}, Class: task.Interactive,
		Params: task.Params{"max_tokens": fmt.Append(nil, tokens)}, Stream: true,
	}
	return func(ctx context.Context, hear func(string) error) error {
		accepted, err := c.Submit(ctx, submit, "")
		if err != nil {
			return err
		}
		return c.Tail(ctx, accepted.TaskID, event.ID{}, func(e event.Event) error {
			switch {
			case e.Type == event.Delta:
				return hear(e.Text)
			case e.Type.Terminal() && e.Type != event.Succeeded:
				return fmt.Errorf("task %s ended as %s", e.TaskID, e.Type)
			}
			return nil
		})
	}
}
