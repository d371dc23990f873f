package bulk

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxLines is how many requests one file may have.
	MaxLines = 50_000
	// maxCustomID bounds a line's custom_id, in bytes.
	maxCustomID = 512
)

// line is one request of a file.
type line struct {
	CustomID string         `json:"custom_id"`
	Method   string         `json:"method"`
	URL      string         `json:"url"`
	Body     jsontext.Value `json:"body"`
}

// parseLine reads one line: an object without duplicate names, with all members
// and no wrong ones among them. What it says of a fault never repeats a value.
func parseLine(raw []byte, endpoint string) (line, *Fault) {
	var l line
	if err := strictjson.Unmarshal(raw, &l); err != nil {
		if semantic, ok := errors.AsType[*strictjson.SemanticError](err); ok {
			return l, &Fault{Code: "invalid_json_line", Message: "has a member of the wrong type", Param: pointer(semantic.JSONPointer)}
		}
		return l, &Fault{Code: "invalid_json_line", Message: "is not one JSON object with unique names, in UTF-8"}
	}
	switch {
	case l.CustomID == "":
		return l, &Fault{Code: "missing_required_parameter", Message: "custom_id is required: a text that names this line in the results", Param: "custom_id"}
	case len(l.CustomID) > maxCustomID:
		return l, &Fault{Code: "invalid_custom_id", Message: "custom_id has more than 512 bytes", Param: "custom_id"}
	case l.Method != "POST":
		return l, &Fault{Code: "invalid_method", Message: "method must be POST", Param: "method"}
	case l.URL != endpoint:
		return l, &Fault{Code: "invalid_url", Message: "url must be the endpoint of the batch, " + endpoint, Param: "url"}
	case l.Body.Kind() != '{':
		return l, &Fault{Code: "missing_required_parameter", Message: "body is required: the object that would be posted to the url", Param: "body"}
	}
	return l, nil
}

// pointer names the member of a line that a JSON pointer begins with.
func pointer(p jsontext.Pointer) string {
	for name := range p.Tokens() {
		return name
	}
	return ""
}

// errLineTooLarge is returned by next for a line over the limit.
var errLineTooLarge = errors.New("line is too large")

// lines reads the requests of a file, one after another. Empty lines are none.
type lines struct {
	r     *bufio.Reader
	limit int
	buf   []byte
	n     int // of the line in the file, from 1
	place int // of the request among the others, from 0
}

// readAhead is how much of a file is read at once.
const readAhead = 64 << 10

func newLines(r io.Reader, limit int) *lines {
	return &lines{r: bufio.NewReaderSize(r, readAhead), limit: limit, place: -1}
}

// next returns the next request, which is good until the next call, or io.EOF.
func (s *lines) next() ([]byte, error) {
	for {
		if err := s.read(); err != nil {
			return nil, err
		}
		if raw := bytes.TrimSpace(s.buf); len(raw) > 0 {
			s.place++
			return raw, nil
		}
	}
}

// read reads up to the end of a line, or of the file.
func (s *lines) read() error {
	s.buf = s.buf[:0]
	s.n++
	for {
		part, err := s.r.ReadSlice('\n')
		if len(s.buf)+len(part) > s.limit {
			return errLineTooLarge
		}
		s.buf = append(s.buf, part...)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(s.buf) > 0:
			return nil
		default:
			return err
		}
	}
}
