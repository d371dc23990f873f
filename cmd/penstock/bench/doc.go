// Package bench measures a running Penstock, and compares it in the same run
// with the least that could do the job: a bare handler that only produces, and
// an oracle that wastes nothing. So the figures that matter are ratios, which
// mean the same on a laptop and on a server.
package bench
