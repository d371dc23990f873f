// Package validate is the door check of every JSON body: one strict pass over
// the tokens, then JSON Schema 2020-12.
//
// The strict pass refuses what encoding/json lets through or mends in silence:
// duplicate names, invalid UTF-8, data after the value, and nesting deeper than
// api.MaxDepth. It stops at the first fault, so a body that is 100,000 levels
// deep costs as much as one of 65 bytes.
//
// Guarantee: an error says where (JSON path, byte offset) and what was expected
// in one sentence. It never repeats a value of the body; of the caller's own
// text it contains member names, cut to a bounded length, and at most the one
// character or escape sequence that breaks the grammar.
package validate
