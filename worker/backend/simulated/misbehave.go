package simulated

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/fault"
)

const (
	// floodBytes is what a flood sends unless its reader goes away.
	floodBytes = 100 << 20
	// dripEvery is the time of a drip's byte unless its delay says otherwise.
	dripEvery = time.Second
)

// fail answers a call that failed: with its status, by breaking the connection,
// or by misbehaving with the answer it would have had.
func (e *Engine) fail(w http.ResponseWriter, r *http.Request, err error, answer func() []byte) {
	if m, ok := errors.AsType[*misbehaviour](err); ok {
		m.serve(w, r, answer)
		return
	}
	f, _ := errors.AsType[*fault.Error](err)
	if f == nil || f.Status == 0 {
		panic(http.ErrAbortHandler)
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
	}
	replyError(w, f.Status, f.Message)
}

// serve misbehaves as a broken engine would. The reader may go away at any
// time: then nobody is left to tell.
func (m *misbehaviour) serve(w http.ResponseWriter, r *http.Request, answer func() []byte) {
	w.Header().Set("Content-Type", "application/json")
	switch m.Action {
	case ActionGarbage:
		_, _ = io.WriteString(w, `{"choices": [ {"index": 7, "te`)
	case ActionUTF8:
		_, _ = w.Write(m.spoil(answer()))
	case ActionHalf:
		_, _ = w.Write(halve(answer()))
	case ActionDrip:
		m.drip(w, r, answer())
	case ActionFlood:
		flood(w, r)
	case ActionDrop:
		panic(http.ErrAbortHandler)
	default: // cut
		w.Header().Set("Content-Length", "4096")
		_, _ = io.WriteString(w, `{"choices":[`)
		panic(http.ErrAbortHandler)
	}
}

// spoil puts bytes that are no UTF-8 before the text of each choice whose
// prompt the fault matches: the others of a call have nothing to do with it.
func (m *misbehaviour) spoil(answer []byte) []byte {
	bad := func(text []byte) []byte {
		for _, name := range []string{`"content":"`, `"text":"`} {
			text = bytes.ReplaceAll(text, []byte(name), []byte(name+"\xff\xc0"))
		}
		return text
	}
	var body map[string]json.RawMessage
	var choices []json.RawMessage
	if json.Unmarshal(answer, &body) != nil || json.Unmarshal(body["choices"], &choices) != nil || len(choices) != len(m.prompts) {
		return bad(answer)
	}
	for i, prompt := range m.prompts {
		if strings.Contains(prompt, m.Match) {
			choices[i] = bad(choices[i])
		}
	}
	return slices.Concat([]byte(`{"choices":[`), bytes.Join(raws(choices), []byte(",")), []byte("]}"))
}

func raws(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i, raw := range list {
		out[i] = raw
	}
	return out
}

// halve leaves out the second half of the choices or vectors, rounded up.
func halve(answer []byte) []byte {
	var body map[string]json.RawMessage
	if json.Unmarshal(answer, &body) != nil {
		return answer[:len(answer)/2] // a stream
	}
	for _, name := range []string{"choices", "data"} {
		var list []json.RawMessage
		if json.Unmarshal(body[name], &list) == nil {
			body[name] = marshal(append([]json.RawMessage{}, list[:len(list)/2]...))
		}
	}
	return marshal(body)
}

// drip sends byte by byte.
func (m *misbehaviour) drip(w http.ResponseWriter, r *http.Request, answer []byte) {
	every := m.Delay
	if every == 0 {
		every = dripEvery
	}
	rc := http.NewResponseController(w)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range answer {
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
		_, _ = w.Write(answer[i : i+1])
		_ = rc.Flush()
	}
}

// flood sends far more than anybody asked for.
func flood(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, `{"choices":[{"index":0,"text":"`)
	part := bytes.Repeat([]byte("x"), 64<<10)
	for sent := 0; sent < floodBytes && r.Context().Err() == nil; sent += len(part) {
		if _, err := w.Write(part); err != nil {
			return
		}
	}
}
