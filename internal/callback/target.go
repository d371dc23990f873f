package callback

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"

	"github.com/penstock/penstock/schema/api"
)

// Policy says which URLs may be called. The zero value is the one for the
// internet: https, on ports 443 and 8443, at public addresses.
type Policy struct {
	AllowPrivate bool // also http, any port and any address; for laptops and closed networks
}

// ErrURL is wrapped by what Check returns.
var ErrURL = errors.New("cannot be called")

// ports that may be called, besides none at all, which is 443.
func ports() []uint16 { return []uint16{443, 8443} }

// Check returns why a URL may not be called, in words for whoever sent it; nil
// if it may. Names are not resolved: what they lead to is checked in each dial.
func (p Policy) Check(raw string) error {
	if len(raw) > api.MaxWebhookURL {
		return refuse("it has %d bytes, at most %d are allowed", len(raw), api.MaxWebhookURL)
	}
	u, err := url.Parse(raw)
	if err != nil { // its text repeats the URL, which may hold a secret
		return refuse("it is no URL")
	}
	switch {
	case u.Scheme != "https" && (u.Scheme != "http" || !p.AllowPrivate):
		return refuse("it must begin with https://")
	case u.Hostname() == "":
		return refuse("it names no host")
	case u.User != nil:
		return refuse("it holds a user name; deliveries are signed instead")
	case u.Fragment != "":
		return refuse("it has a fragment (#), which is never sent")
	case !isASCII(u.Hostname()):
		return refuse("its host must be ASCII; write it in punycode (xn--…)")
	}
	return p.checkPlace(u)
}

// checkPlace looks at port and, where the host is one, address.
func (p Policy) checkPlace(u *url.URL) error {
	port := uint64(443)
	if text := u.Port(); text != "" {
		var err error
		if port, err = strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
			return refuse("%q is no port", text)
		}
	}
	if p.AllowPrivate {
		return nil
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil { // a name: its addresses are known at the dial
		addr = netip.AddrFrom4([4]byte{1, 1, 1, 1})
	}
	switch err := p.guard().SafeAddrPort(netip.AddrPortFrom(addr, uint16(port))); {
	case errors.Is(err, ssrf.ErrProhibitedPort):
		return refuse("port %d is not called; use 443 or 8443", port)
	case err != nil:
		return refuse("%s is no public address", addr)
	case strings.EqualFold(u.Hostname(), "localhost"):
		return refuse("localhost is no public host")
	}
	return nil
}

// Control is for a net.Dialer: it refuses an address that may not be called,
// after names were resolved and before anything is sent.
func (p Policy) Control() func(network, address string, c syscall.RawConn) error {
	if p.AllowPrivate {
		return nil
	}
	return p.guard().Safe
}

func (p Policy) guard() *ssrf.Guardian { return ssrf.New(ssrf.WithPorts(ports()...)) }

// Prohibited reports whether a dial failed because the address, or its port,
// may not be called.
func Prohibited(err error) bool {
	return errors.Is(err, ssrf.ErrProhibitedIP) || errors.Is(err, ssrf.ErrProhibitedPort) || errors.Is(err, ssrf.ErrProhibitedNetwork) ||
		errors.Is(err, ssrf.ErrInvalidHostPort)
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrURL, fmt.Sprintf(format, args...))
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
