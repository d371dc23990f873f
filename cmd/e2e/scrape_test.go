//go:build e2e

package e2e_test

import (
	"testing"

	"github.com/penstock/penstock/cmd/penstock/client"
)

func scrape(t *testing.T, base string) client.Metrics {
	t.Helper()
	cl, err := client.New(client.Config{API: base})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	m, err := cl.Metrics(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var listAll = client.Filter{Limit: 200}
