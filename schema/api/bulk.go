package api

import "github.com/penstock/penstock/schema/task"

// File is one file in the OpenAI shape. Times are Unix seconds.
type File struct {
	ID        string `json:"id"`
	Object    string `json:"object"` // "file"
	Bytes     int64  `json:"bytes"`
	CreatedAt int64  `json:"created_at"`
	ExpiresAt int64  `json:"expires_at"`
	Filename  string `json:"filename"`
	Purpose   string `json:"purpose"`
	Status    string `json:"status"` // "processed": a file is whole or not there
}

// FileList is the body of GET /v1/files.
type FileList struct {
	Object  string  `json:"object"` // "list"
	Data    []File  `json:"data"`
	FirstID *string `json:"first_id"`
	LastID  *string `json:"last_id"`
	HasMore bool    `json:"has_more"`
}

// FileDeleted is the body of DELETE /v1/files/{id}.
type FileDeleted struct {
	ID      string `json:"id"`
	Object  string `json:"object"` // "file"
	Deleted bool   `json:"deleted"`
}

// BulkOrder is the body of POST /v1/batches.
type BulkOrder struct {
	InputFileID        string            `json:"input_file_id"`
	Endpoint           string            `json:"endpoint"`
	CompletionWindow   string            `json:"completion_window"`
	Metadata           map[string]string `json:"metadata,omitempty"`
	OutputExpiresAfter *ExpiresAfter     `json:"output_expires_after,omitempty"`
	Webhook            *task.Webhook     `json:"webhook,omitempty"` // an extension of ours
}

// ExpiresAfter is how long a client wants a file to live.
type ExpiresAfter struct {
	Anchor  string `json:"anchor"` // "created_at"
	Seconds int    `json:"seconds"`
}

// Bulk is one batch job in the OpenAI shape. What has not come yet is null.
type Bulk struct {
	ID               string            `json:"id"`
	Object           string            `json:"object"` // "batch"
	Endpoint         string            `json:"endpoint"`
	Errors           *BulkErrors       `json:"errors"`
	InputFileID      string            `json:"input_file_id"`
	CompletionWindow string            `json:"completion_window"`
	Status           string            `json:"status"`
	OutputFileID     *string           `json:"output_file_id"`
	ErrorFileID      *string           `json:"error_file_id"`
	CreatedAt        int64             `json:"created_at"`
	InProgressAt     *int64            `json:"in_progress_at"`
	ExpiresAt        *int64            `json:"expires_at"`
	FinalizingAt     *int64            `json:"finalizing_at"`
	CompletedAt      *int64            `json:"completed_at"`
	FailedAt         *int64            `json:"failed_at"`
	ExpiredAt        *int64            `json:"expired_at"`
	CancellingAt     *int64            `json:"cancelling_at"`
	CancelledAt      *int64            `json:"cancelled_at"`
	RequestCounts    BulkCounts        `json:"request_counts"`
	Metadata         map[string]string `json:"metadata"`
}

// BulkCounts are the lines of a batch by what became of them. Failed are all
// that ended without an answer of 200, expired and cancelled ones included.
type BulkCounts struct {
	Total     int `json:"total"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
}

// BulkErrors say why a file was not run.
type BulkErrors struct {
	Object string      `json:"object"` // "list"
	Data   []BulkError `json:"data"`
}

// BulkError is one fault of a file.
type BulkError struct {
	Code    string  `json:"code"`
	Line    *int    `json:"line"` // from 1; null: the whole file
	Message string  `json:"message"`
	Param   *string `json:"param"`
}

// BulkList is the body of GET /v1/batches.
type BulkList struct {
	Object  string  `json:"object"` // "list"
	Data    []Bulk  `json:"data"`
	FirstID *string `json:"first_id"`
	LastID  *string `json:"last_id"`
	HasMore bool    `json:"has_more"`
}
