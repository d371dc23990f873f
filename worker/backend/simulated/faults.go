package simulated

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Action is what a fault does to a call.
type Action string

// Actions. Status answers with an HTTP status; Hang never answers; Cut ends a
// stream after some tokens (or a plain answer in the middle); Garbage answers
// 200 with nonsense; Slow answers late. The others need the wire to show what
// they are, and in process are an answer that makes no sense: UTF8 puts bytes
// that are no text into the answer, Drip sends it byte by byte, Flood sends
// without end, Half leaves out half of the choices, Drop closes the connection
// without a word.
const (
	ActionStatus  Action = "status"
	ActionHang    Action = "hang"
	ActionCut     Action = "cut"
	ActionGarbage Action = "garbage"
	ActionSlow    Action = "slow"
	ActionUTF8    Action = "utf8"
	ActionDrip    Action = "drip"
	ActionFlood   Action = "flood"
	ActionHalf    Action = "half"
	ActionDrop    Action = "drop"
)

// actions lists them, as they are told to people.
func actions() []Action {
	return []Action{
		ActionStatus, ActionHang, ActionCut, ActionGarbage, ActionSlow,
		ActionUTF8, ActionDrip, ActionFlood, ActionHalf, ActionDrop,
	}
}

// Fault is one switch: which calls it concerns, and what happens to them.
type Fault struct {
	ID         int           `json:"id,omitempty"`
	Model      string        `json:"model,omitempty"` // empty: every model
	Match      string        `json:"match,omitempty"` // part of the prompt; empty: every prompt
	Ratio      float64       `json:"ratio,omitempty"` // 0 or 1: every call
	Count      int           `json:"count,omitempty"` // calls left; 0: no limit
	Action     Action        `json:"action,omitempty"`
	Status     int           `json:"status,omitempty"`
	After      int           `json:"after,omitempty"` // cut: tokens that still come
	Delay      time.Duration `json:"-"`
	RetryAfter time.Duration `json:"-"`
	Hits       int           `json:"hits"`
}

// Faults are an engine's fault switches. The zero value has none; it is safe
// for concurrent use.
type Faults struct {
	mu   sync.Mutex
	next int
	list []Fault
}

// Set turns a fault on and returns its id. A fault without an action answers
// with its status, one without either with 500.
func (f *Faults) Set(rule Fault) (int, error) {
	if rule.Action == "" {
		rule.Action = ActionStatus
	}
	if rule.Action == ActionStatus && rule.Status == 0 {
		rule.Status = 500
	}
	if !slices.Contains(actions(), rule.Action) {
		return 0, fmt.Errorf("action %q is none of %v", rule.Action, actions())
	}
	if rule.Ratio < 0 || rule.Ratio > 1 || rule.Count < 0 || rule.After < 0 || rule.Delay < 0 ||
		rule.Action == ActionStatus && (rule.Status < 400 || rule.Status > 599) {
		return 0, fmt.Errorf("ratio is 0 to 1, status 400 to 599, count, after and delay are not negative")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	rule.ID, rule.Hits = f.next, 0
	f.list = append(f.list, rule)
	return rule.ID, nil
}

// Clear turns one fault off, or all with id 0, and returns how many went.
func (f *Faults) Clear(id int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	kept := f.list[:0]
	for _, rule := range f.list {
		if id != 0 && rule.ID != id {
			kept = append(kept, rule)
		}
	}
	gone := len(f.list) - len(kept)
	f.list = kept
	return gone
}

// List returns the faults that are on.
func (f *Faults) List() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Fault{}, f.list...)
}

// take returns the first fault that concerns a call, and counts it.
func (f *Faults) take(model, text string) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.list {
		rule := &f.list[i]
		if rule.Model != "" && rule.Model != model || !strings.Contains(text, rule.Match) {
			continue
		}
		if rule.Count > 0 && rule.Hits >= rule.Count {
			continue
		}
		if rule.Ratio > 0 && rule.Ratio < 1 && rand.Float64() >= rule.Ratio {
			continue
		}
		rule.Hits++
		return *rule, true
	}
	return Fault{}, false
}
