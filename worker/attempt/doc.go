// Package attempt runs tries of tasks on a backend and says what follows from
// each outcome. It is the only place that decides: adapters classify failures,
// and everybody else does as told here.
//
// Delivery promise: an attempt writes tokens only under its own fence, and a
// refused or lost token write ends the token stream, never the attempt. Redis
// being slow or away costs tokens, not results.
package attempt
