package resultsvc_test

import (
	"testing"
	"time"

	"github.com/penstock/penstock/internal/idsecret"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/schema/task"
)

// An EventSource sends no header but Last-Event-ID, and opens the same URL again.
func TestAPageReadsItsTaskWithATicket(t *testing.T) {
	b := setup(t, nil)
	signer, err := idsecret.DefaultConfig().Tickets()
	if err != nil {
		t.Fatal(err)
	}
	id, other := b.id(), b.id()
	text, err := signer.Sign(ticket.Grant{Task: id, Expires: time.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	path := "/v1/tasks/" + string(id)
	b.attempt(id, 1, 2)
	first, _ := frames(t, b.get(path+"/events?ticket="+text).Body, 2)
	b.end(id, task.Succeeded, 0)
	rest, _ := frames(t, b.get(path+"/events?ticket="+text, "Last-Event-ID", first[1].id).Body, -1)
	if len(rest) != 3 || rest[2].event != "succeeded" {
		t.Errorf("resumed with %+v", rest)
	}
	b.await(id)
	for url, want := range map[string]int{
		path + "?ticket=" + text:                                 200,
		path + "/events?ticket=" + text + "&after=" + rest[2].id: 204,
		"/v1/tasks/" + string(other) + "?ticket=" + text:         403,
		"/v1/tasks/" + string(other) + "/events?ticket=" + text:  403,
		path + "?ticket=" + text[:len(text)-1]:                   401,
	} {
		if res := b.get(url); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", url, res.StatusCode, want)
		}
	}
}
