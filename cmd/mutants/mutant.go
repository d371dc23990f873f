package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mutant is one way of breaking a promise.
type mutant struct {
	name  string
	rule  string // the rule or promise whose loss it is
	file  string // from the root of the tree
	old   string // stands exactly once in file
	new   string
	tests []string // packages whose tests must notice
	run   string   // which of their tests; empty: all
}

var errDoesNotApply = errors.New("the text to be replaced does not stand in the file exactly once")

// apply returns the file's contents after the change.
func (m *mutant) apply(root string) (string, error) {
	src, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return "", fmt.Errorf("mutant %s: %w", m.name, err)
	}
	if n := strings.Count(string(src), m.old); n != 1 {
		return "", fmt.Errorf("mutant %s: %s has it %d times: %w", m.name, m.file, n, errDoesNotApply)
	}
	return strings.Replace(string(src), m.old, m.new, 1), nil
}

// overlay writes the changed file and the go command's map to it into dir, and
// returns the map's path.
func (m *mutant) overlay(root, dir string) (string, error) {
	changed, err := m.apply(root)
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(at, []byte(changed), 0o600); err != nil {
		return "", fmt.Errorf("mutant %s: %w", m.name, err)
	}
	// The two strings of the map cannot fail to encode.
	data, _ := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, m.file): at}})
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return "", fmt.Errorf("mutant %s: %w", m.name, err)
	}
	return path, nil
}
