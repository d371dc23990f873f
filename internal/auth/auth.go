// Package auth says who calls and what they may do. It knows no HTTP: the
// middleware is in httpserver, and gRPC can use the same authenticators.
package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/penstock/penstock/schema/task"
)

// ErrUnauthenticated is about nobody we know, or no longer (HTTP 401).
var ErrUnauthenticated = errors.New("unauthenticated")

// ErrForbidden is about somebody we know who lacks the scope (HTTP 403).
var ErrForbidden = errors.New("forbidden")

// Scopes of the API.
const (
	ScopeSubmit = "submit" // submit and cancel tasks
	ScopeRead   = "read"   // read tasks and their events
	ScopeAdmin  = "admin"  // dead letters, redrives, pools
	ScopeAll    = "*"      // each of them
)

// Scopes returns every scope a key may hold.
func Scopes() []string { return []string{ScopeSubmit, ScopeRead, ScopeAdmin, ScopeAll} }

// Principal is an authenticated caller.
type Principal struct {
	Tenant string   // owns tasks; never shown to other tenants
	KeyID  string   // which key it came with, for the audit; empty in dev
	Scopes []string // what it may do

	// Only is the one task it may read, for who came with a ticket of it. Empty:
	// all of its tenant's.
	Only task.ID
}

// Has reports whether the principal holds a scope.
func (p Principal) Has(scope string) bool {
	return slices.Contains(p.Scopes, scope) || slices.Contains(p.Scopes, ScopeAll)
}

// Require returns an error wrapping ErrForbidden unless p holds the scope.
func (p Principal) Require(scope string) error {
	if p.Has(scope) {
		return nil
	}
	return fmt.Errorf("%w: scope %q is missing", ErrForbidden, scope)
}

// Authenticator finds the principal behind a bearer token; "" means that none
// was sent. Its error wraps ErrUnauthenticated when the token is at fault, and
// never holds the token.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (Principal, error)
}

// Finder finds a principal by the id of its key, where the key itself is not at
// hand: a ticket names one. Its error wraps ErrUnauthenticated when the key is
// not good, or not any more.
type Finder interface {
	Find(ctx context.Context, keyID string) (Principal, error)
}

// DevTenant is the tenant of everybody in dev mode.
const DevTenant = "dev"

// Dev lets everybody in as tenant dev with every scope. Only for listeners on
// loopback: CheckBind says so.
type Dev struct{}

// Authenticate accepts any token, and none.
func (Dev) Authenticate(context.Context, string) (Principal, error) {
	return Principal{Tenant: DevTenant, Scopes: []string{ScopeAll}}, nil
}

// Find returns the principal that everybody is.
func (d Dev) Find(ctx context.Context, _ string) (Principal, error) { return d.Authenticate(ctx, "") }

// principalKey is the context key of the caller.
type principalKey struct{}

// With returns a context that carries the caller.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns the caller that ctx carries; false if nobody authenticated it.
func From(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok
}
