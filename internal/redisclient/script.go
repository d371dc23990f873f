package redisclient

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// Script is a Lua script that is sent by its hash, and in full only to a
// server that does not have it: after a restart, a failover or a SCRIPT FLUSH.
type Script struct{ lua *redis.Script }

// NewScript returns a script from its source.
func NewScript(source string) Script { return Script{redis.NewScript(source)} }

// Call is one call of a script.
type Call struct {
	Keys []string
	Args []any
}

// Run calls the script once.
func (s Script) Run(ctx context.Context, rdb redis.UniversalClient, c Call) *redis.Cmd {
	return s.lua.Run(ctx, rdb, c.Keys, c.Args...)
}

// RunAll makes many calls in one round trip, and returns their results in the
// same order. Calls that met a server without the script are made once more,
// in full.
func (s Script) RunAll(ctx context.Context, rdb redis.UniversalClient, calls []Call) []*redis.Cmd {
	out := make([]*redis.Cmd, len(calls))
	pipe := rdb.Pipeline()
	for i, c := range calls {
		out[i] = s.lua.EvalSha(ctx, pipe, c.Keys, c.Args...)
	}
	_, _ = pipe.Exec(ctx) // each command carries its own error
	again := rdb.Pipeline()
	for i, c := range calls {
		if redis.HasErrorPrefix(out[i].Err(), "NOSCRIPT") {
			out[i] = s.lua.Eval(ctx, again, c.Keys, c.Args...)
		}
	}
	if again.Len() > 0 {
		_, _ = again.Exec(ctx)
	}
	return out
}
