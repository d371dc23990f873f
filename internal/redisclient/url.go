package redisclient

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// target is what a URL says.
type target struct {
	addrs              []string
	db                 int
	username, password string
	tls                bool
	cluster            bool
	master             string // of a sentinel; empty otherwise
}

const defaultPort = "6379"

// parse reads
//
//	redis://[user:password@]host[:port][/db]   one server; rediss:// with TLS
//	redis://h1:1,h2:2                          a cluster's seeds; ?cluster=true makes one of one
//	redis+sentinel://h1:1,h2:2/master[?db=N]   sentinels; rediss+sentinel:// with TLS
//
// and the same without a scheme. Its errors never hold the password.
func parse(text string) (target, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		scheme, rest = "redis", text
	}
	base, sentinel := strings.CutSuffix(scheme, "+sentinel")
	if base != "redis" && base != "rediss" {
		return target{}, fmt.Errorf("unknown scheme %q: want redis, rediss, redis+sentinel or rediss+sentinel", scheme)
	}
	t := target{tls: base == "rediss"}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	errUser := t.readUser(&authority) // first: what it leaves are the hosts
	err := errors.Join(errUser, t.readHosts(authority), t.readPath(path, sentinel), t.readQuery(query))
	return t, err
}

// readUser cuts "user:password@" off the authority. A password may hold an "@".
func (t *target) readUser(authority *string) error {
	at := strings.LastIndexByte(*authority, '@')
	if at < 0 {
		return nil
	}
	user, password, _ := strings.Cut((*authority)[:at], ":")
	*authority = (*authority)[at+1:]
	var errUser, errPassword error
	t.username, errUser = url.PathUnescape(user)
	t.password, errPassword = url.PathUnescape(password)
	if errUser != nil || errPassword != nil {
		return errors.New("the user or password is not percent-encoded")
	}
	return nil
}

func (t *target) readHosts(hosts string) error {
	for addr := range strings.SplitSeq(hosts, ",") {
		if addr = strings.TrimSpace(addr); addr == "" {
			return errors.New("a host is missing")
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(strings.Trim(addr, "[]"), defaultPort)
		}
		if _, port, _ := net.SplitHostPort(addr); !isPort(port) {
			return fmt.Errorf("port %q is not a number", port)
		}
		t.addrs = append(t.addrs, addr)
	}
	return nil
}

func (t *target) readPath(path string, sentinel bool) error {
	switch {
	case sentinel && path == "":
		return errors.New("a sentinel URL ends with the master's name")
	case sentinel:
		t.master = path
		return nil
	case path == "":
		return nil
	default:
		return t.readDB(path)
	}
}

func (t *target) readQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("the query cannot be read")
	}
	for key := range values {
		switch key {
		case "db":
			err = errors.Join(err, t.readDB(values.Get(key)))
		case "cluster":
			var bad error
			t.cluster, bad = strconv.ParseBool(values.Get(key))
			err = errors.Join(err, bad)
		default:
			err = errors.Join(err, fmt.Errorf("unknown option %q: want db or cluster", key))
		}
	}
	if t.db != 0 && (t.cluster || (len(t.addrs) > 1 && t.master == "")) {
		err = errors.Join(err, errors.New("a cluster has only database 0"))
	}
	return err
}

func (t *target) readDB(text string) error {
	db, err := strconv.Atoi(text)
	if err != nil || db < 0 {
		return fmt.Errorf("database %q is not a number", text)
	}
	t.db = db
	return nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}
