package auth

import (
	"fmt"
	"net"
	"net/netip"
)

// CheckBind refuses to let everybody in (Dev) on an address that other machines
// can reach. An address without a host binds every interface.
func CheckBind(a Authenticator, listen string) error {
	if _, dev := a.(Dev); !dev || isLoopback(listen) {
		return nil
	}
	return fmt.Errorf("listen %s: without API keys only a loopback address is allowed: bind 127.0.0.1 or set auth_keys_file", listen)
}

func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
