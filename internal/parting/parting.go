// Package parting ends connections that could go on: at their age, and when the
// server goes away. Each ends at its own moment, and its client comes back after
// a wait of its own, so that they do not return as a herd.
package parting

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Causes for which a connection that could go on ends.
var (
	ErrDraining = errors.New("the server is going away")
	ErrLifetime = errors.New("the connection has reached its age")
)

// Asked reports that a connection ended because its client was asked to come
// back.
func Asked(err error) bool { return errors.Is(err, ErrDraining) || errors.Is(err, ErrLifetime) }

// Reason is what the client is told of such an end.
func Reason(err error) string {
	if errors.Is(err, ErrDraining) {
		return "drain"
	}
	return "lifetime"
}

// Wait is how long one client should stay away, in whole milliseconds.
func Wait() time.Duration {
	return time.Second + time.Duration(rand.IntN(9000))*time.Millisecond
}

// Terms are those of the connections of one server.
type Terms struct {
	Lifetime time.Duration   // give or take a fifth
	Draining context.Context // done once connections must end
	Spread   time.Duration   // over which they then do
}

// Schedule has end called with the cause when a connection is due, perhaps with
// both. Stop is for one that ended by itself.
func (t Terms) Schedule(end func(cause error)) (stop func()) {
	age := time.AfterFunc(Age(t.Lifetime), func() { end(ErrLifetime) })
	stay := context.AfterFunc(t.Draining, func() {
		time.AfterFunc(rand.N(t.Spread+1), func() { end(ErrDraining) })
	})
	return func() { age.Stop(); stay() }
}

// Age is how old one connection may become: its lifetime, give or take a fifth.
func Age(lifetime time.Duration) time.Duration {
	return lifetime - lifetime/5 + rand.N(2*lifetime/5+1)
}
