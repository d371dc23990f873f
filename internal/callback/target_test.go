package callback_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/schema/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inside are addresses that no call may reach.
var inside = []string{
	"0.0.0.0", "0.1.2.3", // this network
	"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.255.255", // private
	"100.64.0.1", "100.127.255.255", // carrier-grade NAT
	"127.0.0.1", "127.1.2.3", "127.255.255.254", // loopback
	"169.254.0.1", "169.254.169.254", "169.254.170.2", // link local, and clouds' metadata
	"192.0.0.1", "192.0.0.192", "192.0.2.1", "198.51.100.7", "203.0.113.9", // protocol assignments, documentation
	"192.88.99.1", "198.18.0.1", "198.19.255.255", // relays, benchmarking
	"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", // multicast, reserved, broadcast
	"::", "::1", // unspecified, loopback
	"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", // IPv4 in IPv6's clothes
	"::127.0.0.1",                                                                 // and the older ones
	"64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", // NAT64
	"100::1",                              // discard
	"2001::1", "2001:10::1", "2001:20::1", // Teredo, ORCHID
	"2001:db8::1", "3fff::1", // documentation
	"2002:7f00:1::", "2002:a00:1::1", // 6to4 of loopback and private
	"fc00::1", "fd00:ec2::254", "fdff::1", // unique local, and a cloud's metadata
	"fe80::1", "fec0::1", // link local, site local
	"ff02::1", "ff0e::1", // multicast
	"4000::1", "5f00::1", // not handed out
}

// outside are addresses that are called.
var outside = []string{"1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::200e"}

func TestAddressesInsideAreNeverDialled(t *testing.T) {
	if len(inside) < 40 {
		t.Fatalf("%d addresses", len(inside))
	}
	control := callback.Policy{}.Control()
	for _, addr := range inside {
		for _, port := range []string{"443", "8443"} {
			at := net.JoinHostPort(addr, port)
			if err := control(networkOf(addr), at, nil); !callback.Prohibited(err) {
				t.Errorf("%s: %v", at, err)
			}
		}
		if err := (callback.Policy{}).Check("https://" + net.JoinHostPort(addr, "443") + "/hook"); !errors.Is(err, callback.ErrURL) {
			t.Errorf("%s is taken at the door: %v", addr, err)
		}
	}
	for _, addr := range outside {
		if err := control(networkOf(addr), net.JoinHostPort(addr, "443"), nil); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		for port, want := range map[string]bool{"22": true, "80": true, "6379": true, "9092": true, "8443": false} {
			if err := control(networkOf(addr), net.JoinHostPort(addr, port), nil); callback.Prohibited(err) != want {
				t.Errorf("%s, port %s: %v", addr, port, err)
			}
		}
	}
	if err := control("udp4", "8.8.8.8:443", nil); !callback.Prohibited(err) {
		t.Errorf("udp: %v", err)
	}
}

func networkOf(addr string) string {
	if strings.Contains(addr, ":") {
		return "tcp6"
	}
	return "tcp4"
}

func TestURLsAreCheckedAtTheDoor(t *testing.T) {
	long := "https://example.com/" + strings.Repeat("a", api.MaxWebhookURL)
	for name, c := range map[string]struct {
		url             string
		public, private bool // taken
	}{
		"a host":                      {"https://example.com/hook?x=1", true, true},
		"port 443":                    {"https://example.com:443", true, true},
		"port 8443":                   {"https://example.com:8443/", true, true},
		"a public address":            {"https://93.184.216.34/hook", true, true},
		"a public IPv6 address":       {"https://[2606:4700::1111]/hook", true, true},
		"as long as allowed":          {long[:api.MaxWebhookURL], true, true},
		"another port":                {"https://example.com:8080/hook", false, true},
		"plain http":                  {"http://example.com/hook", false, true},
		"loopback":                    {"http://127.0.0.1:9000/hook", false, true},
		"localhost":                   {"https://LocalHost/hook", false, true},
		"an address with a zone":      {"https://[fe80::1%25eth0]/hook", false, true},
		"too long":                    {long, false, false},
		"nothing":                     {"", false, false},
		"no URL":                      {"https://exa mple.com/%zz", false, false},
		"no scheme":                   {"example.com/hook", false, false},
		"another scheme":              {"ftp://example.com/hook", false, false},
		"gopher":                      {"gopher://127.0.0.1:6379/_FLUSHALL", false, false},
		"a file":                      {"file:///etc/passwd", false, false},
		"no host":                     {"https:///hook", false, false},
		"an opaque part":              {"https:example.com", false, false},
		"a password":                  {"https://user:secret@example.com/hook", false, false},
		"a fragment":                  {"https://example.com/hook#part", false, false},
		"port zero":                   {"https://example.com:0/hook", false, false},
		"a port beyond all":           {"https://example.com:99999/hook", false, false},
		"a host in another script":    {"https://bücher.example/hook", false, false},
		"full-width digits of a host": {"https://１２７.0.0.1/hook", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for private, want := range map[bool]bool{false: c.public, true: c.private} {
				err := callback.Policy{AllowPrivate: private}.Check(c.url)
				if (err == nil) != want || err != nil && !errors.Is(err, callback.ErrURL) {
					t.Errorf("private %t: %v", private, err)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("the error repeats a secret: %v", err)
				}
			}
		})
	}
}

// TestANameThatChangesItsMindIsRefusedInTheDial has a resolver name a public
// address first and loopback from then on.
func TestANameThatChangesItsMindIsRefusedInTheDial(t *testing.T) {
	var asked atomic.Int32
	var answering sync.WaitGroup
	defer answering.Wait()
	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		answering.Go(func() {
			answerDNS(theirs, func() [4]byte {
				if asked.Add(1) <= 2 { // A and AAAA of the first look
					return [4]byte{93, 184, 216, 34}
				}
				return [4]byte{127, 0, 0, 1}
			})
		})
		return ours, nil
	}}
	const hook = "https://rebind.example.com/hook"
	policy := callback.Policy{}
	if err := policy.Check(hook); err != nil {
		t.Fatal(err)
	}
	found, err := resolver.LookupHost(t.Context(), "rebind.example.com")
	if err != nil || len(found) == 0 || found[0] != "93.184.216.34" {
		t.Fatalf("the first look found %v, %v", found, err)
	}
	connected := false
	guard := policy.Control()
	dialer := &net.Dialer{Resolver: resolver, Control: func(network, address string, c syscall.RawConn) error {
		err := guard(network, address, c)
		connected = connected || err == nil
		return err
	}}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, hook, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err == nil {
		_ = res.Body.Close()
	}
	if !callback.Prohibited(err) || connected {
		t.Errorf("connected %t, %v", connected, err)
	}
}

// answerDNS answers one question as over TCP, which is what the resolver takes
// a connection for that is not of packets.
func answerDNS(conn net.Conn, address func() [4]byte) {
	defer conn.Close()
	var size [2]byte
	if _, err := conn.Read(size[:]); err != nil {
		return
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := conn.Read(query); err != nil {
		return
	}
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5 // the root, type and class
	reply := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, query[12:end]...)
	ip := address()
	if query[end-3] == 1 { // an A record; of the others there is none
		reply[7] = 1
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, ip[0], ip[1], ip[2], ip[3])
	}
	_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
}
