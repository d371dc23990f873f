package api

import "time"

// Ticket is the data of POST /v1/tasks/{id}/ticket and POST /v1/ws/ticket: what
// a browser sends in a query where it can set no header.
type Ticket struct {
	Ticket    string    `json:"ticket"`
	URL       string    `json:"url"`        // what it opens, the ticket in its query
	ExpiresAt time.Time `json:"expires_at"` // nobody connects with it from then on
}
