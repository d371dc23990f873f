package ledger

import (
	"fmt"
	"os"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/auth"
)

// WriteKeys makes a key for each tenant and writes the file that the services
// read (auth_keys_file). It returns the keys by tenant.
func WriteKeys(path string, tenants ...string) (map[string]string, error) {
	var file struct {
		Keys []auth.Key `yaml:"keys"`
	}
	out := map[string]string{}
	for _, name := range tenants {
		text, key := auth.GenerateKey(name, []string{auth.ScopeSubmit, auth.ScopeRead}, time.Time{})
		out[name], file.Keys = text, append(file.Keys, key)
	}
	raw, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("write keys: %w", err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return nil, fmt.Errorf("write keys: %w", err)
	}
	return out, nil
}
