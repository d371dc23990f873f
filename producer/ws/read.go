package ws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/coder/websocket"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

const (
	// maxFrame is what a message may have around the body of a submit, in bytes.
	maxFrame = 4 << 10
	// unmetered is how much of a message is read before its bytes count against
	// the tenant's budget.
	unmetered = 64 << 10
)

// message is what a client sent, before it is decoded. Its owner leaves the
// pass, which is nil for a small one.
type message struct {
	data []byte
	pass *admit.Pass
}

func (m message) leave() {
	if m.pass != nil {
		m.pass.Leave()
	}
}

// read takes messages until the connection ends or its client sends too many
// that cannot be read. Ctx ends with the socket; the connection itself stays
// readable until it is closed, since a goodbye waits for the client's.
func (s *socket) read(ctx context.Context) error {
	for faults := 0; ; {
		m, err := s.receive()
		if err == nil {
			err = s.take(ctx, m)
		}
		switch refused, ok := errors.AsType[*refusedError](err); {
		case err == nil:
			faults = 0
		case !ok:
			return err
		default:
			s.fail(refused.ref, "", refused.err)
			if faults++; faults >= s.a.p.Faults {
				return errUnreadable
			}
		}
	}
}

// refusedError is about a message that is answered with an error.
type refusedError struct {
	ref string
	err error
}

func (e *refusedError) Error() string { return "message refused: " + e.err.Error() }

func (e *refusedError) Unwrap() error { return e.err }

// receive waits for a message and reads it, within the time and the room that a
// message has.
func (s *socket) receive() (message, error) {
	kind, r, err := s.conn.Reader(context.Background())
	if err != nil {
		return message{}, goneError(err)
	}
	late := time.AfterFunc(s.a.p.MessageTime, func() { s.stop(errTooSlow) })
	defer late.Stop()
	m, err := s.readAll(r)
	if err == nil && kind != websocket.MessageText {
		m.leave()
		err = &refusedError{err: fault.New(fault.Malformed, "send text messages: a binary one is not read")}
	}
	return m, err
}

// readAll reads a message. Beyond a first part its bytes are the tenant's, and
// of a message over the limit the rest is read and dropped, because a client
// that is still sending would not see the goodbye.
func (s *socket) readAll(r io.Reader) (m message, err error) {
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, r, unmetered); errors.Is(err, io.EOF) {
		return message{data: buf.Bytes()}, nil
	} else if err != nil {
		return message{}, goneError(err)
	}
	most := s.limit + maxFrame
	pass, err := s.a.d.Limits.Enter(s.who.Tenant, most)
	if err != nil {
		return message{}, s.drop(r, &refusedError{err: err})
	}
	if _, err = buf.ReadFrom(io.LimitReader(r, most-unmetered+1)); err != nil {
		err = goneError(err)
	} else if int64(buf.Len()) > most {
		err = s.drop(r, errTooLarge)
	}
	if err != nil {
		pass.Leave()
		return message{}, err
	}
	pass.Shrink(int64(buf.Len()))
	return message{buf.Bytes(), pass}, nil
}

func (s *socket) drop(r io.Reader, why error) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return goneError(err)
	}
	return why
}

// goneError is why nothing more can be read: the client closed, or is gone, or
// sends what is far beyond the limit.
func goneError(err error) error {
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return errTooLarge
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

// decode reads a message strictly. Its error is a *refusedError with the
// message's own ref, where that can be found.
func (s *socket) decode(data []byte) (api.SocketRequest, error) {
	var m api.SocketRequest
	err := s.a.schema.Decode(data, &m)
	if err == nil {
		return m, nil
	}
	var loose struct {
		Ref string `json:"ref"`
	}
	_ = json.Unmarshal(data, &loose) // the fault is told anyway
	if len(loose.Ref) > api.MaxName {
		loose.Ref = ""
	}
	return m, &refusedError{ref: loose.Ref, err: err}
}

// errorOf gives an error the form it has on every native route.
func errorOf(err error) *httpserver.Error {
	if v, ok := errors.AsType[*validate.Error](err); ok {
		e := httpserver.Fail(v.Code, "%s", v.Error())
		e.Param = v.Path
		return e
	}
	return httpserver.AsError(err)
}
