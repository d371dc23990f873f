// Package rpc is the gRPC contract in Go: generated from schema/proto by
// scripts/proto.sh, never edited. It is the server's; others generate their own
// from the same files, or ask a server's reflection.
package rpc
