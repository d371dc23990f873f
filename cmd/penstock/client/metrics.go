package client

import (
	"bytes"
	"strconv"
	"strings"
)

// Metrics holds the samples of one scrape: the name with its labels, as it was
// written, and the value.
type Metrics map[string]float64

// Sum adds all samples of a metric whose labels contain every given
// `name="value"`.
func (m Metrics) Sum(name string, labels ...string) float64 {
	var sum float64
	for sample, value := range m {
		base, rest, _ := strings.Cut(sample, "{")
		if base == name && containsAll(rest, labels) {
			sum += value
		}
	}
	return sum
}

func containsAll(text string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// parseMetrics reads the text format as client_golang writes it: one sample a
// line, its value after the last space.
func parseMetrics(raw []byte) Metrics {
	out := Metrics{}
	for line := range bytes.Lines(raw) {
		text := strings.TrimSpace(string(line))
		i := strings.LastIndexByte(text, ' ')
		if i < 0 || text[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(text[i+1:], 64); err == nil {
			out[text[:i]] = v
		}
	}
	return out
}
