package grpcapi

import (
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/penstock/penstock/internal/rpc"
)

// errSlow is about a watcher who does not read.
var errSlow = errors.New("the watcher reads too slowly")

// slowest is the pace, in bytes a second, at which a watcher must take what is
// larger than one event of tokens.
const slowest = 1 << 20

// sender sends messages one by one, each with its own deadline: gRPC has none
// for one message, and a send that waits for its reader ends only with the call.
// That is what the caller of send makes end, by returning from the handler.
type sender struct {
	timeout time.Duration
	in      chan *rpc.WatchResponse
	out     chan error // 1 slot: the sender never waits for one who gave up
}

// newSender starts the goroutine that sends. It ends after close, once the
// message under way is sent or its call is over; the server waits for it.
func (s *Server) newSender(to watchStream) *sender {
	w := &sender{timeout: s.p.WriteTimeout, in: make(chan *rpc.WatchResponse), out: make(chan error, 1)}
	s.senders.Go(func() {
		for m := range w.in {
			w.out <- to.Send(m)
		}
	})
	return w
}

// send returns once gRPC has taken a message, or errSlow. After an error it is
// not called again.
func (w *sender) send(m *rpc.WatchResponse) error {
	timer := time.NewTimer(w.timeout + time.Duration(proto.Size(m)/slowest)*time.Second)
	defer timer.Stop()
	w.in <- m // the goroutine waits for it
	select {
	case err := <-w.out:
		return err
	case <-timer.C:
		return errSlow
	}
}

func (w *sender) close() { close(w.in) }
