package backend

import "github.com/penstock/penstock/schema/task"

// Allowed returns the parameters of a task that an engine gets to see.
func Allowed(t *task.Task) task.Params {
	out := make(task.Params, len(t.Params))
	for name, v := range t.Params {
		if t.Kind.Takes(name) {
			out[name] = v
		}
	}
	return out
}
