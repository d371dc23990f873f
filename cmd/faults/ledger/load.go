package ledger

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// Load is a set of tasks. The n-th is a function of the load alone, so that a
// run can be repeated.
type Load struct {
	// Name is part of every prompt and key: loads of different names on one
	// system stay apart.
	Name    string
	Tasks   int
	Tenants []string // task n belongs to one of them; at least one
	Tokens  int      // length of an answer; default 8

	// Shares of the tasks, 0 to 1: those that stream, and those that bear an
	// ordering key.
	Streamed, Ordered float64
	Keys              int // ordering keys in use; default 16
	StreamTokens      int // length of a streamed answer; default Tokens

	// Marked is the share of the tasks whose prompt contains one of the marks,
	// for a fault switch of the engine to match.
	Marked float64
	Marks  []Mark

	Class task.Class // of all; empty: mixed
	Seed  uint64
}

// Mark is a word in some prompts, and what becomes of those tasks.
type Mark struct {
	Word    string
	Fate    task.Status // how they must end; empty: succeeded
	Garbled bool        // their answers are not the engine's own
}

// Job is one task of a load.
type Job struct {
	N       int
	Tenant  string
	Key     string // idempotency key
	Request api.SubmitRequest
	Want    string      // the answer of the simulated engine; empty: any
	Fate    task.Status // how it must end
	Mark    string      // in its prompt
}

// Job returns the n-th task.
func (l Load) Job(n int) Job {
	h := fnv.New64a()
	_, _ = h.Write([]byte(l.Name)) // a hash's Write never fails
	rng := rand.New(rand.NewPCG(l.Seed^h.Sum64(), uint64(n)))
	j := Job{
		N: n, Tenant: l.Tenants[rng.IntN(len(l.Tenants))], Key: fmt.Sprintf("%s-%d-%d", l.Name, l.Seed, n),
		Fate: task.Succeeded,
	}
	tokens := cmp.Or(l.Tokens, 8)
	j.Request = api.SubmitRequest{Model: simulated.ChatModel, Class: l.class(rng), Stream: rng.Float64() < l.Streamed}
	prompt := fmt.Sprintf("%s task %d of seed %d", l.Name, n, l.Seed)
	var mark Mark
	if rng.Float64() < l.Marked {
		mark = l.Marks[rng.IntN(len(l.Marks))]
		j.Mark, j.Fate, prompt = mark.Word, cmp.Or(mark.Fate, task.Succeeded), prompt+" "+mark.Word
	}
	if j.Request.Stream {
		tokens = cmp.Or(l.StreamTokens, tokens)
		prompt = string(chat(prompt))
		j.Request.Payload.Messages = json.RawMessage(prompt)
	} else {
		j.Request.Payload.Text = prompt
	}
	if rng.Float64() < l.Ordered {
		j.Request.OrderingKey = fmt.Sprintf("%s-key-%d", l.Name, rng.IntN(cmp.Or(l.Keys, 16)))
	}
	j.Request.Params = task.Params{"max_tokens": json.RawMessage(strconv.Itoa(tokens))}
	if !mark.Garbled {
		j.Want = simulated.Text(prompt, tokens)
	}
	return j
}

func (l Load) class(rng *rand.Rand) task.Class {
	if l.Class != "" {
		return l.Class
	}
	classes := task.Classes()
	return classes[rng.IntN(len(classes))]
}

func chat(prompt string) []byte {
	raw, err := json.Marshal([]struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}{{"user", prompt}})
	if err != nil {
		panic(err) // two strings cannot fail
	}
	return raw
}
