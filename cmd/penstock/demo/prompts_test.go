package demo_test

import (
	"testing"

	"github.com/penstock/penstock/cmd/penstock/demo"
)

func TestPrompts(t *testing.T) {
	prompts, err := demo.Prompts()
	if err != nil {
		t.Fatal(err)
	}
	if len(prompts) < 50 {
		t.Errorf("%d prompts are shipped, want at least 50", len(prompts))
	}
	labels, texts := map[string]bool{}, map[string]bool{}
	for _, p := range prompts {
		if p.Model == "" || p.Payload.Text == "" {
			t.Errorf("prompt %v lacks a model or a text", p.Labels)
		}
		if labels[p.Labels["prompt"]] || texts[p.Payload.Text] {
			t.Errorf("prompt %v is there twice", p.Labels)
		}
		labels[p.Labels["prompt"]], texts[p.Payload.Text] = true, true
	}
}
