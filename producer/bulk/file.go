package bulk

import (
	"time"

	"github.com/penstock/penstock/schema/task"
)

// Purpose says what a file is for.
type Purpose string

// Purposes. A client's file has one of the first; Output is ours to give.
const (
	PurposeBatch      Purpose = "batch"
	PurposeAssistants Purpose = "assistants"
	PurposeFineTune   Purpose = "fine-tune"
	PurposeVision     Purpose = "vision"
	PurposeUserData   Purpose = "user_data"
	PurposeEvals      Purpose = "evals"
	PurposeOutput     Purpose = "batch_output"
)

// Uploads returns the purposes that a client may name.
func Uploads() []Purpose {
	return []Purpose{PurposeBatch, PurposeAssistants, PurposeFineTune, PurposeVision, PurposeUserData, PurposeEvals}
}

// File is one file of a tenant. It never changes.
type File struct {
	ID        string    `json:"id"`
	Tenant    string    `json:"tenant"`
	Name      string    `json:"name"`
	Purpose   Purpose   `json:"purpose"`
	Content   task.Ref  `json:"content"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

const (
	filePrefix  = "file-"
	batchPrefix = "batch_"
	// maxFileName bounds the name that a client gives a file, in bytes.
	maxFileName = 255
	// leastLife is the shortest life a client may give a file.
	leastLife = time.Hour
)
