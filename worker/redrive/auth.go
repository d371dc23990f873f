package redrive

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/penstock/penstock/schema/fault"
)

// guard lets a request pass if it bears the admin token. Without a configured
// token only loopback is answered, and only under a loopback name: a page in
// the operator's browser must reach these routes neither by a forged form (see
// http.CrossOriginProtection) nor by a name that resolves to 127.0.0.1.
func (r *Redriver) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := r.authorize(req); err != nil {
			r.answerError(w, req, err)
			return
		}
		next.ServeHTTP(w, req)
	})
}

func (r *Redriver) authorize(req *http.Request) error {
	token := r.p.Token.Reveal()
	if token == "" {
		if local(req) {
			return nil
		}
		return &failure{
			status: http.StatusForbidden, code: fault.Forbidden,
			message: "the admin API has no token and so answers on loopback only; configure an admin token to reach it from elsewhere",
		}
	}
	scheme, given, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || !same(strings.TrimSpace(given), token) {
		return &failure{status: http.StatusUnauthorized, code: fault.Unauthorized, message: "send the admin token as Authorization: Bearer <token>"}
	}
	return nil
}

// same compares in a time that depends on neither text.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// local reports whether the request came in over a loopback address and under
// a loopback name.
func local(req *http.Request) bool {
	at, ok := req.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	ap, err := netip.ParseAddrPort(at.String())
	if err != nil || !ap.Addr().Unmap().IsLoopback() {
		return false
	}
	name := req.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = strings.Trim(name, "[]")
	ip, err := netip.ParseAddr(name)
	return strings.EqualFold(name, "localhost") || (err == nil && ip.IsLoopback())
}
