package validate

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// Document reads exactly one JSON value under the strict rules and returns it
// as maps, slices, strings, float64, booleans and nil: the form a Schema
// checks. Errors are *Error.
func Document(data []byte) (any, error) {
	if err := checkDepth(data); err != nil {
		return nil, err
	}
	var v any
	if err := strictjson.Unmarshal(data, &v); err != nil {
		return nil, strictError(err, data)
	}
	return v, nil
}

// checkDepth scans for brackets outside of strings. It runs before the parser,
// which recurses, and stops at the first bracket too many.
func checkDepth(data []byte) error {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = skipString(data, i)
		case '{', '[':
			if depth++; depth > api.MaxDepth {
				return errTooDeep(i)
			}
		case '}', ']':
			depth--
		}
	}
	return nil
}

// skipString returns the index of the quote that ends the string which begins
// at i, or the end of data.
func skipString(data []byte, i int) int {
	for {
		n := bytes.IndexByte(data[i+1:], '"')
		if n < 0 {
			return len(data)
		}
		i += 1 + n
		slashes := 0
		for data[i-1-slashes] == '\\' { // stops at the opening quote at the latest
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
}

func errTooDeep(at int) *Error {
	return &Error{
		Code: fault.Malformed, Offset: int64(at),
		Reason: "nested deeper than " + strconv.Itoa(api.MaxDepth) + " levels",
	}
}

// Elements splits a body of the form {"<member>": [ … ]} into the elements of
// the array, unchecked beyond the grammar: each element is to be read by
// Decode, so that a bad one does not spoil the others. More than most elements
// are fault.TooLarge, found without reading further. Errors are *Error.
func Elements(data []byte, member string, most int) ([]json.RawMessage, error) {
	e := elements{
		d:    jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)),
		data: data, member: member, most: most,
	}
	return e.read()
}

// elements reads the outer two levels of a list body.
type elements struct {
	d      *jsontext.Decoder
	data   []byte
	member string
	most   int
	out    []json.RawMessage
}

func (e *elements) read() ([]json.RawMessage, error) {
	if err := e.open('{', "", "object"); err != nil {
		return nil, err
	}
	for e.d.PeekKind() == '"' {
		if err := e.readMember(); err != nil {
			return nil, err
		}
	}
	if _, err := e.d.ReadToken(); err != nil {
		return nil, strictError(err, e.data)
	}
	if _, err := e.d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, &Error{Code: fault.Malformed, Offset: e.d.InputOffset(), Reason: "data after the end of the JSON value"}
	}
	if e.out == nil {
		return nil, &Error{Code: fault.Malformed, Offset: -1, Path: e.member, Reason: "is required"}
	}
	return e.out, nil
}

func (e *elements) readMember() error {
	at := e.d.InputOffset()
	tok, err := e.d.ReadToken()
	if err != nil {
		return strictError(err, e.data)
	}
	switch name := tok.String(); {
	case name != e.member:
		return &Error{Code: fault.Malformed, Offset: at, Path: appendName("", name), Reason: "unknown field"}
	case e.out != nil:
		return &Error{Code: fault.Malformed, Offset: at, Path: e.member, Reason: "duplicate name"}
	}
	return e.readArray()
}

func (e *elements) readArray() error {
	if err := e.open('[', e.member, "array"); err != nil {
		return err
	}
	e.out = []json.RawMessage{}
	for e.d.PeekKind() != ']' {
		value, err := e.d.ReadValue()
		if err != nil {
			return strictError(err, e.data)
		}
		if len(e.out) == e.most {
			return &Error{
				Code: fault.TooLarge, Offset: -1, Path: e.member,
				Reason: "has more than " + strconv.Itoa(e.most) + " items",
			}
		}
		e.out = append(e.out, json.RawMessage(value.Clone()))
	}
	_, err := e.d.ReadToken()
	return err
}

// open reads the token that must begin a container of the given kind.
func (e *elements) open(want jsontext.Kind, path, name string) error {
	tok, err := e.d.ReadToken()
	if err != nil {
		return strictError(err, e.data)
	}
	if tok.Kind() != want {
		return &Error{Code: fault.Malformed, Offset: -1, Path: path, Reason: "expected " + name}
	}
	return nil
}

// strictError turns what the parser says into an Error.
func strictError(err error, data []byte) *Error {
	out := &Error{Code: fault.Malformed, Offset: int64(len(data)), Reason: "ends in the middle of a value"}
	if len(bytes.TrimSpace(data)) == 0 {
		out.Offset, out.Reason = -1, "is empty"
		return out
	}
	if semantic, ok := errors.AsType[*strictjson.SemanticError](err); ok {
		out.Offset, out.Path, out.Reason = semantic.ByteOffset, pointerPath(semantic.JSONPointer), "number out of range"
		return out
	}
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return out
	}
	out.Offset, out.Path = syntax.ByteOffset, pointerPath(syntax.JSONPointer)
	switch {
	case errors.Is(syntax.Err, jsontext.ErrDuplicateName):
		out.Reason = "duplicate name"
	case !errors.Is(syntax.Err, io.ErrUnexpectedEOF) && syntax.Err != nil:
		out.Reason = "not valid JSON, " + syntax.Err.Error()
	}
	return out
}

func pointerPath(p jsontext.Pointer) string {
	path := ""
	for token := range p.Tokens() {
		path = appendToken(path, token)
	}
	return path
}
