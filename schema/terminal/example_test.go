package terminal_test

import (
	"fmt"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Whoever reads `penstock.results` in order finds the same winner: here a
// cancel that came before the worker's success.
func ExampleState_Apply() {
	generation := uint8(0)
	log := []*terminal.Terminal{
		{TaskID: "task_1", Status: task.Cancelled}, // the caller's: no generation
		{TaskID: "task_1", Status: task.Succeeded, Generation: &generation},
	}
	var state terminal.State
	for offset, record := range log {
		var won bool
		state, won = state.Apply(record, int64(offset))
		fmt.Println(record.Status, "took effect:", won)
	}
	fmt.Println("the task is", state.Status)
	// Output:
	// cancelled took effect: true
	// succeeded took effect: false
	// the task is cancelled
}
