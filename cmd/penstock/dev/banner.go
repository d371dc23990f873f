package dev

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Banner prints what a newcomer needs: the warning, the addresses and one
// command to paste.
func (s *Stack) Banner(w io.Writer) {
	lines := []string{
		"Penstock, everything in one process. NOT FOR PRODUCTION.",
		"",
		"API base    " + s.URL(),
		"Chat        " + s.URL() + "/chat",
		"Docs        " + s.URL() + "/docs",
		"Metrics     " + s.URL() + "/metrics",
		"Operator    " + s.URL() + "/admin/v1/dead-letters",
	}
	if addr := s.GRPCAddr(); addr != "" {
		lines = append(lines, "gRPC        "+addr+", plaintext, with reflection")
	}
	if s.simulator != nil {
		lines = append(lines, "Engine      simulated; fault switches at "+s.simulator.URL()+"/sim/faults")
	} else {
		lines = append(lines, "Engine      "+s.cfg.Backend)
	}
	lines = append(lines, "Keeps       "+s.keeps())
	box(w, lines)
	fmt.Fprintf(w, "\nTry:\n\n  curl -s %s/v1/inference -H 'Content-Type: application/json' -H 'Prefer: wait=30' \\\n"+
		"    -d '{\"model\":%q,\"payload\":{\"text\":\"Why is the sky blue?\"}}'\n\nStop with Ctrl-C.\n\n", s.URL(), s.models.Models[0].ID)
}

// keeps says what survives a restart.
func (s *Stack) keeps() string {
	switch {
	case s.cfg.Kafka != "":
		return "results in Kafka at " + s.cfg.Kafka
	case s.cfg.DataDir != "":
		return "results in " + s.cfg.DataDir + ", across restarts"
	}
	return "nothing after it stops; start with --data-dir DIR to keep results"
}

func box(w io.Writer, lines []string) {
	width := 0
	for _, l := range lines {
		width = max(width, utf8.RuneCountInString(l))
	}
	fmt.Fprintln(w, "┌"+strings.Repeat("─", width+2)+"┐")
	for _, l := range lines {
		fmt.Fprintln(w, "│ "+l+strings.Repeat(" ", width-utf8.RuneCountInString(l))+" │")
	}
	fmt.Fprintln(w, "└"+strings.Repeat("─", width+2)+"┘")
}
