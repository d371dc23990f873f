package producer_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/penstock/penstock/producer"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

const inOrder = `{"model":"sim-chat","payload":{"text":"hello"},"ordering_key":"chat 7"}`

// shortQueues lets two tasks wait behind one key of tenant acme.
func shortQueues(c *producer.Config, d *producer.Deps) { c.KeyQueueLimit, d.Auth = 2, acme{} }

func TestAFullQueueOfAKeyIs429UntilATaskEnds(t *testing.T) {
	b := setup(t, shortQueues)
	first := b.accepted(b.post("/v1/inference", inOrder, "Idempotency-Key", "k-1"))
	b.accepted(b.post("/v1/inference", inOrder))
	full := b.post("/v1/inference", inOrder)
	if full.status != http.StatusTooManyRequests || full.header.Get("Retry-After") != "1" || !bytes.Contains(full.body, []byte(`"throttled"`)) {
		t.Errorf("%d %v %s", full.status, full.header, full.body)
	}
	b.accepted(b.post("/v1/inference", hello))
	if again := b.accepted(b.post("/v1/inference", inOrder, "Idempotency-Key", "k-1")); again != first {
		t.Errorf("a repeat of a task that waits got %+v after %+v", again, first)
	}
	if n := len(b.records(topic.Tasks("default", task.Standard))); n != 3 {
		t.Errorf("%d records, want the three accepted", n)
	}

	b.end(first.TaskID, task.Succeeded)
	b.project()
	eventually(t, "the place of the task that ended is given away", func() bool {
		return b.post("/v1/inference", inOrder).status == http.StatusAccepted
	})
	if a := b.post("/v1/inference", inOrder); a.status != http.StatusTooManyRequests {
		t.Errorf("and once more: %d %s", a.status, a.body)
	}
	b.redis.Close()
	b.accepted(b.post("/v1/inference", inOrder))
}

func TestAFullQueueOfAKeyIs429ForAnItem(t *testing.T) {
	b := setup(t, shortQueues)
	a := b.post("/v1/inference/batch", `{"tasks":[`+inOrder+","+inOrder+","+inOrder+","+hello+`]}`)
	var got struct{ Data api.BatchResponse }
	if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusAccepted || len(got.Data.Items) != 4 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for i, want := range []int{202, 202, 429, 202} {
		if got.Data.Items[i].Code != want {
			t.Errorf("item %d: %+v, want %d", i, got.Data.Items[i], want)
		}
	}
}
