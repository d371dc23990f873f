// Command penstock-resultsvc is the results service: it fills Redis from
// penstock.results and serves polls, lists and event streams.
package main

import (
	"os"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/resultsvc"
)

func main() { os.Exit(lifecycle.Main(resultsvc.Main)) }
