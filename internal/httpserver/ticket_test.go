package httpserver_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/schema/task"
)

// strangers is an Authenticator that finds nobody by the id of a key.
type strangers struct{}

func (strangers) Authenticate(context.Context, string) (auth.Principal, error) {
	return auth.Principal{Tenant: "acme", Scopes: []string{auth.ScopeAll}}, nil
}

func TestATicketStandsForItsKey(t *testing.T) {
	t.Parallel()
	reader, readKey := auth.GenerateKey("acme", []string{auth.ScopeRead}, time.Time{})
	_, submitKey := auth.GenerateKey("acme", []string{auth.ScopeSubmit}, time.Time{})
	_, goneKey := auth.GenerateKey("acme", []string{auth.ScopeAll}, time.Time{})
	goneKey.Revoked = true
	keys, err := auth.NewKeys([]auth.Key{readKey, submitKey, goneKey})
	if err != nil {
		t.Fatal(err)
	}
	tickets := ticket.NewSigner(task.Secret{Key: []byte("0123456789abcdef")})
	b := setup(t, limits(), func(e *echo.Echo) {
		ok := func(c echo.Context) error {
			p := httpserver.Principal(c)
			return c.String(http.StatusOK, p.Tenant+" "+string(p.Only)+" "+strings.Join(p.Scopes, "+"))
		}
		orTicket := httpserver.AuthenticateOrTicket(keys, tickets, auth.ScopeRead)
		e.GET("/tasks/:id", ok, orTicket)
		e.GET("/socket", ok, httpserver.AuthenticateOrTicket(keys, tickets))
		e.GET("/keys-only/:id", ok, httpserver.Authenticate(keys, auth.ScopeRead))
		e.GET("/unfound", ok, httpserver.AuthenticateOrTicket(strangers{}, tickets))
		let := httpserver.Authenticate(strangers{}) // somebody who was let in before
		e.GET("/again/:id", ok, let, orTicket)
	})
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Second)
	sign := func(g ticket.Grant) string {
		t.Helper()
		text, err := tickets.Sign(g)
		if err != nil {
			t.Fatal(err)
		}
		return "?ticket=" + text
	}
	good := sign(ticket.Grant{KeyID: readKey.ID, Task: "t1", Expires: later})
	for _, tc := range []struct {
		name, path string
		headers    []string
		status     int
		want       string
	}{
		{"of its task", "/tasks/t1" + good, nil, 200, "acme t1 read"},
		{"of another task", "/tasks/t2" + good, nil, 403, "not for this task"},
		{"of a socket, for a task", "/tasks/t1" + sign(ticket.Grant{KeyID: readKey.ID, Expires: later}), nil, 403, "not for this task"},
		{"of a task, for a socket", "/socket" + good, nil, 200, "acme t1 read"},
		{"of a socket", "/socket" + sign(ticket.Grant{KeyID: submitKey.ID, Expires: later}), nil, 200, "acme  submit"},
		{"whose time is over", "/tasks/t1" + sign(ticket.Grant{KeyID: readKey.ID, Task: "t1", Expires: before}), nil, 401, "has expired"},
		{"whose time is over, of somebody who is in", "/again/t1" + sign(ticket.Grant{KeyID: readKey.ID, Task: "t1", Expires: before}), nil, 200, "acme t1 read"},
		{"of a key without the scope", "/tasks/t1" + sign(ticket.Grant{KeyID: submitKey.ID, Task: "t1", Expires: later}), nil, 403, "scope"},
		{"of a revoked key", "/tasks/t1" + sign(ticket.Grant{KeyID: goneKey.ID, Task: "t1", Expires: later}), nil, 401, ""},
		{"of no key", "/tasks/t1" + sign(ticket.Grant{KeyID: "nobody", Task: "t1", Expires: later}), nil, 401, ""},
		{"that is none", "/tasks/t1?ticket=ticket_x", nil, 401, ""},
		{"beside a key, which counts", "/tasks/t2" + good, []string{"Authorization", "Bearer " + reader}, 200, "acme  read"},
		{"beside a bad key, which counts", "/tasks/t1" + good, []string{"Authorization", "Bearer x"}, 401, ""},
		{"on a route that takes none", "/keys-only/t1" + good, nil, 401, ""},
		{"where nobody can be found by a key's id", "/unfound" + good, nil, 401, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, text := b.do("GET", tc.path, nil, tc.headers...)
			if res.StatusCode != tc.status || !strings.Contains(text, tc.want) {
				t.Errorf("got %d %s", res.StatusCode, text)
			}
			if strings.Contains(text, "ticket_") {
				t.Error("the answer shows the ticket")
			}
		})
	}
	b.stop()
	if err := <-b.result; err != nil {
		t.Error(err)
	}
	if strings.Contains(b.log.String(), "ticket_") {
		t.Error("the log shows a ticket")
	}
}
