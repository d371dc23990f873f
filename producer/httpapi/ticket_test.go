package httpapi_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

func TestTickets(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	signer := ticket.NewSigner(task.Secret{Number: 1, Key: []byte("0123456789abcdef")})
	mine, foreign := b.minter.New("acme", time.Now()), b.minter.New("other", time.Now())
	for _, tc := range []struct {
		path, opens string
		task        task.ID
		life        time.Duration
	}{
		{"/v1/tasks/" + string(mine) + "/ticket", "/v1/tasks/" + string(mine) + "/events", mine, ticket.TaskLife},
		{"/v1/ws/ticket", "/v1/ws", "", ticket.SocketLife},
	} {
		w := b.post(tc.path, "")
		got := dataOf[api.Ticket](t, w)
		g, err := signer.Read(got.Ticket)
		if err != nil || w.Code != http.StatusOK || g.Task != tc.task || !g.Expires.Equal(got.ExpiresAt) {
			t.Errorf("%s: %d %+v %+v, %v", tc.path, w.Code, got, g, err)
		}
		if left := time.Until(g.Expires); left > tc.life || left < tc.life-10*time.Second {
			t.Errorf("%s: good for %s", tc.path, left)
		}
		u, err := url.Parse(got.URL)
		if err != nil || u.Path != tc.opens || u.Query().Get("ticket") != got.Ticket {
			t.Errorf("%s opens %s", tc.path, got.URL)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Error("a ticket may be cached")
		}
	}
	for path, want := range map[string]int{
		"/v1/tasks/" + string(foreign) + "/ticket":                     http.StatusNotFound,
		"/v1/tasks/task_" + strings.Repeat("0", 48) + "/ticket":        http.StatusNotFound,
		"/v1/tasks/" + string(mine) + "/ticket?ticket=ticket_invented": http.StatusUnauthorized,
	} {
		key := "Bearer acme"
		if want == http.StatusUnauthorized {
			key = ""
		}
		if w := b.post(path, "", "Authorization", key); w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := b.post("/v1/tasks/"+string(mine)+"/ticket", "", "Authorization", "Bearer acme:submit"); w.Code != http.StatusForbidden {
		t.Errorf("a caller who may not read: %d", w.Code)
	}
}
