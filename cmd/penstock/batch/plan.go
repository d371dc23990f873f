package batch

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
)

// maxLine is the longest line in bytes. The server has its own limit, and says
// so.
const maxLine = 256 << 20

// Labels that a batch's tasks bear, so that they can be listed and counted.
const (
	labelBatch    = "batch"
	labelCustomID = "custom_id"
)

// Defaults fill what a line leaves out.
type Defaults struct {
	Model string
	Class task.Class
}

// line is where one task is in the file.
type line struct {
	number int
	offset int64
	length int
	id     string // custom_id
}

// plan is a file in which every line is good.
type plan struct {
	file     *os.File
	name     string // of the batch: the hash of its file
	defaults Defaults
	lines    []line
}

// open reads a file through and checks every line. The error tells all that is
// wrong with it, by line. Models are the ids that the server has.
func open(path string, d Defaults, models []string) (*plan, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p := &plan{file: f, defaults: d}
	if err := p.read(path, models); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

func (p *plan) close() error { return p.file.Close() }

func (p *plan) read(path string, models []string) error {
	set, err := validate.Compile(spec.FS)
	if err != nil {
		return fmt.Errorf("compile request schemas: %w", err)
	}
	schema, err := set.Schema("submit")
	if err != nil {
		return err
	}
	c := checker{path: path, plan: p, schema: schema, models: models, first: map[string]int{}}
	hash, in := sha256.New(), bufio.NewReader(p.file)
	for number, offset := 1, int64(0); ; number++ {
		text, err := readLine(in)
		_, _ = hash.Write(text) // a hash's Write never fails
		if len(bytes.TrimSpace(text)) > 0 {
			c.line(line{number: number, offset: offset, length: len(text)}, text)
		}
		offset += int64(len(text))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, number, err)
		}
	}
	p.name = hex.EncodeToString(hash.Sum(nil))[:16]
	return c.verdict()
}

var errLongLine = errors.New("the line is longer than " + strconv.Itoa(maxLine) + " bytes")

// readLine reads a line with its end.
func readLine(in *bufio.Reader) ([]byte, error) {
	var out []byte
	for {
		part, err := in.ReadSlice('\n')
		if out = append(out, part...); len(out) > maxLine {
			return nil, errLongLine
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return out, err
		}
	}
}

// checker gathers what is wrong with a file.
type checker struct {
	path   string
	plan   *plan
	schema *validate.Schema
	models []string
	first  map[string]int // the line that a custom_id came in first
	faults []string
	more   int // faults that are not told one by one
}

// maxFaults are told one by one: a file in the wrong form is wrong in each line.
const maxFaults = 100

func (c *checker) fault(number int, format string, args ...any) {
	if len(c.faults) == maxFaults {
		c.more++
		return
	}
	c.faults = append(c.faults, fmt.Sprintf("%s:%d: ", c.path, number)+fmt.Sprintf(format, args...))
}

func (c *checker) line(l line, text []byte) {
	document, err := validate.Document(text)
	if err != nil {
		c.fault(l.number, "%s", strings.TrimPrefix(err.Error(), "body: "))
		return
	}
	fields, ok := document.(map[string]any)
	if !ok {
		c.fault(l.number, "expected an object")
		return
	}
	l.id, ok = fields["custom_id"].(string)
	switch before, twice := c.first[l.id]; {
	case !ok || l.id == "" || len(l.id) > api.MaxLabel:
		c.fault(l.number, "custom_id: expected a string of 1 to %d bytes", api.MaxLabel)
	case twice:
		c.fault(l.number, "custom_id: %q is that of line %d", l.id, before)
	default:
		c.first[l.id] = l.number
	}
	delete(fields, "custom_id")
	c.task(l.number, fields)
	c.plan.lines = append(c.plan.lines, l)
}

// task checks the rest of a line as the server will.
func (c *checker) task(number int, fields map[string]any) {
	if _, foreign := fields["url"]; foreign && fields["body"] != nil {
		c.fault(number, "this is a line of the OpenAI batch API: this command takes the body of POST /v1/inference with a custom_id")
		return
	}
	if err := c.schema.Check(fields); err != nil {
		c.fault(number, "%s", err)
	}
	model, ok := fields["model"].(string)
	if !ok {
		model = c.plan.defaults.Model
	}
	if model != "" && len(c.models) > 0 && !slices.Contains(c.models, model) {
		c.fault(number, "model: the server has no %q; it has %s", model, strings.Join(c.models, ", "))
	}
	if labels, ok := fields["labels"].(map[string]any); ok && len(labels)+2 > api.MaxLabels {
		c.fault(number, "labels: at most %d, since the batch adds its own two", api.MaxLabels-2)
	}
}

// verdict is nil for a file without faults.
func (c *checker) verdict() error {
	switch {
	case c.more > 0:
		c.faults = append(c.faults, fmt.Sprintf("and %d more", c.more))
	case len(c.faults) == 0 && len(c.plan.lines) == 0:
		return fmt.Errorf("%s: the file has no task", c.path)
	case len(c.faults) == 0:
		return nil
	}
	return errors.New("nothing was submitted:\n" + strings.Join(c.faults, "\n"))
}

// body is what is submitted for a line, and the key it is submitted under. Both
// follow from the file, so a second run submits the same.
func (p *plan) body(l line, salt string) (body []byte, key string, err error) {
	text := make([]byte, l.length)
	if _, err := p.file.ReadAt(text, l.offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, "", fmt.Errorf("read line %d again: %w", l.number, err)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, "", fmt.Errorf("line %d has changed: %w", l.number, err)
	}
	delete(fields, "custom_id")
	if err := p.fill(fields, l); err != nil {
		return nil, "", err
	}
	if body, err = json.Marshal(fields); err != nil { // with its members in order
		return nil, "", fmt.Errorf("encode line %d: %w", l.number, err)
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{p.name, salt, l.id, string(body)}, "\x00")))
	return body, "batch-" + hex.EncodeToString(sum[:16]), nil
}

// fill adds the defaults and the labels.
func (p *plan) fill(fields map[string]json.RawMessage, l line) error {
	labels := map[string]string{}
	if raw, ok := fields["labels"]; ok {
		if err := json.Unmarshal(raw, &labels); err != nil {
			return fmt.Errorf("line %d has changed: %w", l.number, err)
		}
	}
	maps.Copy(labels, map[string]string{labelBatch: p.name, labelCustomID: l.id})
	set := map[string]any{"labels": labels}
	if _, ok := fields["model"]; !ok && p.defaults.Model != "" {
		set["model"] = p.defaults.Model
	}
	if _, ok := fields["class"]; !ok && p.defaults.Class != "" {
		set["class"] = p.defaults.Class
	}
	for name, value := range set {
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("encode %s of line %d: %w", name, l.number, err)
		}
		fields[name] = raw
	}
	return nil
}
