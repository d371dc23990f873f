package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
)

// Bounds of one frame, in bytes: a terminal event carries the full output.
const (
	firstFrame = 4 << 10
	maxFrame   = 128 << 20
)

// frame is one event of an event stream, as the HTML standard reads it.
type frame struct {
	id    string // the last one sent so far, by this frame or one before
	event string
	data  []byte // valid until the next frame
}

// frames reads event streams.
type frames struct {
	lines *bufio.Scanner
	after bool          // the line before ended with CR: an LF that follows belongs to it
	first bool          // no line was read yet: it may begin with a byte order mark
	retry time.Duration // the last one sent; 0: none
	id    string
	data  []byte
}

func newFrames(r io.Reader) *frames {
	f := &frames{lines: bufio.NewScanner(r), first: true}
	f.lines.Buffer(make([]byte, 0, firstFrame), maxFrame)
	f.lines.Split(f.split)
	return f
}

// split cuts lines that end with LF, CR or both. What has no end yet is no
// line: a stream that breaks in it is to be resumed.
func (f *frames) split(data []byte, _ bool) (advance int, token []byte, err error) {
	skip := 0
	if f.after && len(data) > 0 {
		f.after = false
		if data[0] == '\n' {
			skip = 1
		}
	}
	i := bytes.IndexAny(data[skip:], "\r\n")
	if i < 0 {
		return skip, nil, nil
	}
	f.after = data[skip+i] == '\r'
	return skip + i + 1, data[skip : skip+i], nil
}

// all yields every whole frame that has data, then the error that ended the
// stream; the end of the input is none.
func (f *frames) all() iter.Seq2[frame, error] {
	return func(yield func(frame, error) bool) {
		var next frame
		f.data = f.data[:0]
		for f.lines.Scan() {
			line := f.lines.Bytes()
			if f.first {
				line, f.first = bytes.TrimPrefix(line, []byte("\ufeff")), false
			}
			if len(line) > 0 {
				if err := f.field(&next, line); err != nil {
					yield(frame{}, err)
					return
				}
				continue
			}
			if len(f.data) > 0 {
				next.id, next.data = f.id, f.data[:len(f.data)-1] // without its last LF
				if !yield(next, nil) {
					return
				}
			}
			next, f.data = frame{}, f.data[:0]
		}
		switch err := f.lines.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield(frame{}, errFrameTooLong)
		case err != nil:
			yield(frame{}, err)
		}
	}
}

var errFrameTooLong = errors.New("an event is longer than this client takes")

// field reads one line that is not empty.
func (f *frames) field(next *frame, line []byte) error {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		if len(f.data)+len(value) >= maxFrame {
			return errFrameTooLong
		}
		f.data = append(append(f.data, value...), '\n')
	case "event":
		next.event = string(value)
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			f.id = string(value)
		}
	case "retry":
		if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil && !strings.HasPrefix(string(value), "+") {
			f.retry = time.Duration(ms) * time.Millisecond
		}
	}
	return nil
}
