package auth

// Config is the operator's choice of who may call; embed it in a service's
// configuration.
type Config struct {
	KeysFile string `koanf:"auth_keys_file" usage:"YAML file of API keys; without one everybody may call, which only a loopback address allows"`
}

// Open returns the authenticator for a service that listens on an address. It
// refuses to let everybody in where other machines can connect.
func (c Config) Open(listen string) (Authenticator, error) {
	if c.KeysFile == "" {
		if err := CheckBind(Dev{}, listen); err != nil {
			return nil, err
		}
		return Dev{}, nil
	}
	keys, err := OpenKeys(c.KeysFile)
	if err != nil {
		return nil, err // not the nil *Keys, which would be a non-nil Authenticator
	}
	return keys, nil
}
