package producer_test

import (
	"context"

	"github.com/penstock/penstock/internal/auth"
)

// keys lets nobody in.
type keys struct{}

func (keys) Authenticate(context.Context, string) (auth.Principal, error) {
	return auth.Principal{}, auth.ErrUnauthenticated
}

// acme lets everybody in as one tenant, whom the limits hold.
type acme struct{}

func (acme) Authenticate(context.Context, string) (auth.Principal, error) {
	return auth.Principal{Tenant: "acme", Scopes: []string{auth.ScopeAll}}, nil
}
