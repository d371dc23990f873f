package simulated

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// vocabulary is what answers are made of.
const vocabulary = "water gate wheel stream river turbine power flow pressure channel steady lock quiet deep bright stone " +
	"level north valley bridge signal morning copper harbour field engine light season paper window garden winter"

// Tokens returns the answer to a prompt: n words, a function of the prompt
// alone. Each but the first begins with a space, so that they join to the text.
func Tokens(prompt string, n int) []string {
	words := strings.Fields(vocabulary)
	state := hash(prompt)
	out := make([]string, max(n, 0))
	for i := range out {
		state = state*6364136223846793005 + 1442695040888963407 // Knuth's MMIX generator
		out[i] = words[(state>>33)%uint64(len(words))]
		if i > 0 {
			out[i] = " " + out[i]
		}
	}
	return out
}

// Text returns the whole answer to a prompt.
func Text(prompt string, n int) string { return strings.Join(Tokens(prompt, n), "") }

// Stamp is a token that says when it was born: the microseconds since 1970 and a
// space, so that whoever gets some of them joined can tell the age of each.
func Stamp(born time.Time) string { return strconv.FormatInt(born.UnixMicro(), 10) + " " }

// Stamps appends the births of the tokens in a text. Anything else in it is an
// error.
func Stamps(born []time.Time, text string) ([]time.Time, error) {
	for token := range strings.FieldsSeq(text) {
		us, err := strconv.ParseInt(token, 10, 64)
		if err != nil {
			return born, fmt.Errorf("a token is no stamp: %w", err)
		}
		born = append(born, time.UnixMicro(us))
	}
	return born, nil
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // a hash's Write never fails
	return h.Sum64()
}

// dimensions of an embedding.
const dimensions = 64

// Vector returns the embedding of a text: a unit vector, a function of the
// text alone.
func Vector(text string) []float32 {
	state := hash(text)
	out := make([]float32, dimensions)
	var sum float64
	for i := range out {
		state = state*6364136223846793005 + 1442695040888963407
		v := float64(int64(state>>11))/(1<<52) - 1
		out[i] = float32(v)
		sum += v * v
	}
	norm := float32(math.Sqrt(sum))
	for i := range out {
		out[i] /= norm
	}
	return out
}

// count estimates tokens as words: good enough for usage that nobody pays.
func count(s string) int { return max(1, len(strings.Fields(s))) }

// answer is the output of one call.
func (c call) answer() (*task.Output, *task.Usage) {
	if c.kind == task.Embedding {
		return c.embed()
	}
	return c.said(c.streams())
}

// said is the output of one call whose choices have these tokens.
func (c call) said(tokens [][]string) (*task.Output, *task.Usage) {
	finish := c.finish()
	used, texts := 0, joined(tokens)
	for _, prompt := range c.prompts() {
		used += count(prompt)
	}
	out := &task.Output{Text: texts[0], FinishReason: finish}
	switch {
	case c.tool != "":
		out.Text = ""
		choices := make([]any, len(texts))
		for i, text := range texts {
			choices[i] = c.calling(i, text, &finish)
		}
		out.Choices = marshal(choices)
	case len(texts) > 1:
		choices := make([]any, len(texts))
		for i, text := range texts {
			choices[i] = wholeChoice(c.kind, i, text, &finish)
		}
		out.Choices = marshal(choices)
	}
	return out, usage(used, c.tokens*len(texts))
}

func (c call) finish() string {
	switch {
	case c.tokens == 0:
		return "length"
	case c.tool != "":
		return "tool_calls"
	default:
		return "stop"
	}
}

func (c call) prompts() []string {
	if len(c.inputs) > 0 {
		return c.inputs
	}
	return []string{c.prompt}
}

// streams is the tokens of each choice: those of a prompt follow each other,
// and every one but its first is the answer to a prompt of its own.
func (c call) streams() [][]string {
	var out [][]string
	for _, prompt := range c.prompts() {
		for i := range c.n {
			if i > 0 {
				prompt += "\x00"
			}
			out = append(out, Tokens(prompt, c.tokens))
		}
	}
	return out
}

func joined(choices [][]string) []string {
	var out []string
	for _, tokens := range choices {
		out = append(out, strings.Join(tokens, ""))
	}
	return out
}

func (c call) embed() (*task.Output, *task.Usage) {
	inputs := c.prompts()
	vectors := make([]any, len(inputs))
	used := 0
	for i, in := range inputs {
		vectors[i] = Vector(in)
		if c.base64 {
			vectors[i] = base64Of(Vector(in))
		}
		used += count(in)
	}
	return &task.Output{Embeddings: marshal(vectors)}, usage(used, 0)
}

// base64Of is a vector as the OpenAI API encodes it: little-endian float32.
func base64Of(v []float32) string {
	raw := make([]byte, 0, 4*len(v))
	for _, f := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
	}
	return base64.StdEncoding.EncodeToString(raw)
}

func usage(prompt, completion int) *task.Usage {
	return &task.Usage{PromptTokens: prompt, CompletionTokens: completion, TotalTokens: prompt + completion}
}

// marshal writes our own plain values, which cannot fail.
func marshal(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
