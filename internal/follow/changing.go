package follow

import (
	"slices"

	"github.com/penstock/penstock/schema/task"
)

// Open returns a stream that gains and loses watches while it runs, and has
// none yet: Next waits also while there are none, and never returns io.EOF. An
// item with the zero id says that a watch ended with nothing to show: the
// watcher has seen the end, or the result is past its time to live. The stream
// must be closed.
func (f *Follower) Open() *Stream {
	return &Stream{f: f, wake: make(chan struct{}, 1), changes: true}
}

// Add begins a watch on a stream of Open; false if the task is watched already.
// It belongs to the goroutine that calls Next.
func (s *Stream) Add(want Watch) bool {
	if s.find(want.ID) != nil {
		return false
	}
	w := s.newWatch(want)
	s.all = append(s.all, w)
	s.begin(w)
	return true
}

// Remove ends a watch; false if there was none. Nothing of the task comes
// afterwards. It belongs to the goroutine that calls Next.
func (s *Stream) Remove(id task.ID) bool {
	w := s.find(id)
	if w == nil {
		return false
	}
	s.finish(w)
	return true
}

// Nudge makes the Poll that waits, or else the next one, return ErrIdle: its
// caller has something else to do. Any goroutine may call it.
func (s *Stream) Nudge() {
	s.nudged.Store(true)
	wake(s.wake)
}

func (s *Stream) find(id task.ID) *watch {
	if i := slices.IndexFunc(s.all, func(w *watch) bool { return w.id == id }); i >= 0 {
		return s.all[i]
	}
	return nil
}
