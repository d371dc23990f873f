// Command penstock-resultsvc is the results service: it fills Redis from
// penstock.results and serves polls, lists and event streams.
package main

import (
	"os"
	"runtime/debug"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/resultsvc"
)

// gcPercent is how much the heap may grow before it is collected. What this
// service needs most of is memory, for the streams it holds, and it leaves little
// garbage per event: a few percent of its processor time keep the heap at a
// quarter above what is in use, and not at twice that.
const gcPercent = 25

func main() {
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(lifecycle.Main(resultsvc.Main))
}
