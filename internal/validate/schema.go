package validate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/penstock/penstock/schema/fault"
)

// suffix of the schema files in a file system given to Compile.
const suffix = ".schema.json"

// Set is every schema of a file system, compiled. It is safe for concurrent
// use.
type Set struct{ schemas map[string]*Schema }

// Schema checks documents against one JSON Schema 2020-12 file.
type Schema struct {
	name     string
	compiled *jsonschema.Schema
}

// Compile compiles every *.schema.json at the root of files; they may refer to
// each other by file name or $id. Nothing is ever fetched from a network.
// Formats are asserted.
func Compile(files fs.FS) (*Set, error) {
	names, err := fs.Glob(files, "*"+suffix)
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(offline{})
	urls, err := addResources(c, files, names)
	if err != nil {
		return nil, err
	}
	set := &Set{schemas: make(map[string]*Schema, len(names))}
	for name, url := range urls {
		compiled, err := c.Compile(url)
		if err != nil {
			return nil, fmt.Errorf("compile schema %s: %w", name, err)
		}
		set.schemas[name] = &Schema{name: name, compiled: compiled}
	}
	return set, nil
}

// addResources registers each file under its $id, or under a name that
// resolves like a neighbour's, and returns name → URL.
func addResources(c *jsonschema.Compiler, files fs.FS, names []string) (map[string]string, error) {
	urls := make(map[string]string, len(names))
	for _, file := range names {
		text, err := fs.ReadFile(files, file)
		if err != nil {
			return nil, fmt.Errorf("read schema: %w", err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("parse schema %s: %w", file, err)
		}
		url := "embedded:///" + path.Base(file)
		if object, ok := doc.(map[string]any); ok {
			if id, ok := object["$id"].(string); ok && strings.Contains(id, ":") {
				url = id
			}
		}
		if err := c.AddResource(url, doc); err != nil {
			return nil, fmt.Errorf("add schema %s: %w", file, err)
		}
		urls[strings.TrimSuffix(path.Base(file), suffix)] = url
	}
	return urls, nil
}

// offline refuses to load: every schema is embedded.
type offline struct{}

func (offline) Load(url string) (any, error) {
	return nil, fmt.Errorf("schema %s is not embedded", url)
}

// Schema returns the schema of the file <name>.schema.json.
func (s *Set) Schema(name string) (*Schema, error) {
	schema, ok := s.schemas[name]
	if !ok {
		return nil, fmt.Errorf("schema %s does not exist", name)
	}
	return schema, nil
}

// Check validates a document as Document returns it. The error is an *Error
// for its worst offence.
func (s *Schema) Check(document any) error {
	err := s.compiled.Validate(document)
	if err == nil {
		return nil
	}
	if verr, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		return worst(verr)
	}
	return fmt.Errorf("validate against %s: %w", s.name, err)
}

// Decode checks data strictly, then against the schema, and decodes it into
// the value that out points to. Names match by their exact spelling, unlike in
// encoding/json, so no name slips past the schema. Errors are *Error.
func (s *Schema) Decode(data []byte, out any) error {
	document, err := Document(data)
	if err != nil {
		return err
	}
	if err := s.Check(document); err != nil {
		return err
	}
	return decode(data, out)
}

// decode reads data that Document has passed, so that the checks it made are
// not made twice.
func decode(data []byte, out any) error {
	err := strictjson.Unmarshal(data, out, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err == nil {
		return nil
	}
	semantic, ok := errors.AsType[*strictjson.SemanticError](err)
	if !ok {
		return &Error{Code: fault.Malformed, Offset: -1, Reason: "cannot be read"}
	}
	return &Error{
		Code: fault.Malformed, Offset: semantic.ByteOffset, Path: pointerPath(semantic.JSONPointer),
		Reason: "is not a valid value of this field",
	}
}
