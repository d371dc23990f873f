package dispatch

import (
	"container/heap"
	"time"
)

// alarm is one wish to be woken. The loop owns all of them.
type alarm struct {
	at    time.Time
	fire  func()
	index int // in the heap; -1 when not in it
}

// alarms is a heap, the earliest first.
type alarms []*alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }

func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

func (a *alarms) Push(x any) {
	al := x.(*alarm)
	al.index = len(*a)
	*a = append(*a, al)
}

func (a *alarms) Pop() any {
	old := *a
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	last.index = -1
	return last
}

func (a *alarms) set(at time.Time, fire func()) *alarm {
	al := &alarm{at: at, fire: fire}
	heap.Push(a, al)
	return al
}

// stop takes an alarm out; nil and an alarm that has fired are no-ops.
func (a *alarms) stop(al *alarm) {
	if al != nil && al.index >= 0 {
		heap.Remove(a, al.index)
	}
}

// ring fires what is due.
func (a *alarms) ring(now time.Time) {
	for len(*a) > 0 && !(*a)[0].at.After(now) {
		heap.Pop(a).(*alarm).fire()
	}
}

// next is when to ring again.
func (a alarms) next() (time.Time, bool) {
	if len(a) == 0 {
		return time.Time{}, false
	}
	return a[0].at, true
}
