// Package idsecret is the one setting that every service which makes or checks
// task ids, or signs webhooks and tickets, must share: the secret that signs them.
package idsecret

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/schema/task"
)

// Dev is the secret of a development setup. It is in the source and so no
// secret at all: it lets ids survive a restart and two dev processes agree, and
// is refused where other machines can connect.
const Dev = "penstock-development-id-secret"

// Config is the operator's choice; embed it in a service's configuration.
type Config struct {
	ID      config.Secret   `koanf:"id_secret" usage:"secret that signs task ids, the same in every service; at least 16 bytes"`
	Number  uint8           `koanf:"id_secret_number" usage:"number of id_secret, written into ids; raise it with every rotation"`
	Retired []config.Secret `koanf:"id_secret_retired" usage:"secrets whose ids are still accepted, each as number:secret"`
}

// DefaultConfig is the development secret.
func DefaultConfig() Config { return Config{ID: Dev} }

// Minter returns what signs and checks ids. listen is the address the service
// is reached at; the development secret is refused unless it is on loopback.
func (c Config) Minter(listen string) (*task.Minter, error) {
	if c.ID == Dev && auth.CheckBind(auth.Dev{}, listen) != nil {
		return nil, fmt.Errorf("id_secret: the development secret is public; set a secret of your own to listen on %s", listen)
	}
	current, retired, err := c.secrets()
	m, minterErr := task.NewMinter(current, retired...)
	return m, errors.Join(err, minterErr)
}

// WebhookKeys returns what signs webhooks. It is for a service that has a
// Minter, which checks the secrets.
func (c Config) WebhookKeys() (*callback.Keys, error) {
	current, retired, err := c.secrets()
	return callback.NewKeys(current, retired...), err
}

// Tickets returns what signs and checks tickets. It is for a service that has a
// Minter, which checks the secrets.
func (c Config) Tickets() (*ticket.Signer, error) {
	current, retired, err := c.secrets()
	return ticket.NewSigner(current, retired...), err
}

func (c Config) secrets() (current task.Secret, retired []task.Secret, err error) {
	var errs []error
	for i, text := range c.Retired {
		number, key, found := strings.Cut(text.Reveal(), ":")
		n, err := strconv.ParseUint(number, 10, 8)
		if !found || err != nil {
			errs = append(errs, fmt.Errorf("id_secret_retired[%d]: want number:secret, with a number of 0 to 255", i))
			continue
		}
		retired = append(retired, task.Secret{Number: uint8(n), Key: []byte(key)})
	}
	return task.Secret{Number: c.Number, Key: []byte(c.ID.Reveal())}, retired, errors.Join(errs...)
}
