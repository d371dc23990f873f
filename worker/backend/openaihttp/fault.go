package openaihttp

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// apiError is an error that an engine puts into a body.
type apiError struct {
	Code json.RawMessage `json:"code"` // number, text or null
}

// status is the HTTP status the error stands for; 500 if it does not say.
func (e apiError) status() int {
	var n int
	var s string
	if json.Unmarshal(e.Code, &n) != nil && json.Unmarshal(e.Code, &s) == nil {
		_, _ = fmt.Sscanf(s, "%d", &n) // a word leaves 0
	}
	if n < 400 || n > 599 {
		return http.StatusInternalServerError
	}
	return n
}
