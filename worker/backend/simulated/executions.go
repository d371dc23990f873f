package simulated

import (
	"maps"
	"slices"
	"sync"
)

// Execution is one task under one fence that the engine began.
type Execution struct {
	Task  string `json:"task"`
	Fence string `json:"fence"`
}

// Executions is the engine's log: how often each task began to run, and the
// newest entries.
type Executions struct {
	Total  int            `json:"total"`
	Counts map[string]int `json:"counts"`
	Recent []Execution    `json:"recent"`
}

const (
	// executionsKept bounds the tasks whose runs are counted.
	executionsKept = 200_000
	// executionsRecent bounds the log's newest entries.
	executionsRecent = 1024
)

type executions struct {
	mu     sync.Mutex
	total  int
	counts map[string]int
	recent []Execution
}

func (x *executions) add(taskID, fence string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.total++
	if x.counts == nil {
		x.counts = make(map[string]int)
	}
	if _, known := x.counts[taskID]; taskID != "" && (known || len(x.counts) < executionsKept) {
		x.counts[taskID]++
	}
	if len(x.recent) == executionsRecent {
		x.recent = slices.Delete(x.recent, 0, executionsRecent/2)
	}
	x.recent = append(x.recent, Execution{taskID, fence})
}

func (x *executions) snapshot() Executions {
	x.mu.Lock()
	defer x.mu.Unlock()
	return Executions{Total: x.total, Counts: maps.Clone(x.counts), Recent: slices.Clone(x.recent)}
}
