package ingest

// Queue returns the hints that wait.
func (h *Hints) Queue() chan Hint { return h.queue }
