//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/cmd/system/topiclog"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
)

// gate lets no record into a topic while it is shut, because each is too large
// for it. So what was to be written next is known to the moment.
type gate struct {
	t     *testing.T
	adm   *kadm.Client
	usual map[string]string // largest record of a topic, as it was before
}

// sizeLimit is the setting of a topic that a gate shuts it by.
const sizeLimit = "max.message.bytes"

func newGate(t *testing.T, topics ...string) gate {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(env.kafka...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	g := gate{t, kadm.NewClient(cl), map[string]string{}}
	known, err := g.adm.DescribeTopicConfigs(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range known {
		for _, c := range of.Configs {
			if c.Key == sizeLimit {
				g.usual[of.Name] = c.MaybeValue()
			}
		}
	}
	t.Cleanup(func() { g.open(context.Background(), topics...) }) // other tests write there too
	return g
}

func (g gate) shut(ctx context.Context, topics ...string) {
	for _, name := range topics {
		g.limit(ctx, name, "1")
	}
}

func (g gate) open(ctx context.Context, topics ...string) {
	for _, name := range topics {
		g.limit(ctx, name, g.usual[name])
	}
}

func (g gate) limit(ctx context.Context, name, size string) {
	g.t.Helper()
	answers, err := g.adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: sizeLimit, Value: &size}}, name)
	for _, a := range answers {
		err = errors.Join(err, a.Err)
	}
	if err != nil {
		g.t.Fatalf("set %s of %s to %q: %v", sizeLimit, name, size, err)
	}
}

// batchLog is what Kafka holds of a batch's end.
type batchLog struct {
	ended, told bool
	announced   []webhook.Record
}

func readBatch(ctx context.Context, t *testing.T, id string) (out batchLog) {
	t.Helper()
	entries, err := topiclog.ReadAll(ctx, env.kafka, topic.Control)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range entries {
		var e struct{ ID, Type string }
		if json.Unmarshal(r.Value, &e) == nil && e.ID == id { // others write there too
			out.ended = out.ended || e.Type == "bulk.ended"
			out.told = out.told || e.Type == "bulk.told"
		}
	}
	steps, err := topiclog.ReadAll(ctx, env.kafka, topic.Webhooks)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range steps {
		var w webhook.Record
		if string(r.Key) != id {
			continue
		}
		if err := json.Unmarshal(r.Value, &w); err != nil {
			t.Fatal(err)
		}
		if w.Step == webhook.Announced {
			out.announced = append(out.announced, w)
		}
	}
	return out
}

// announcer is a system that runs batches with webhooks.
type announcer struct {
	t   *testing.T
	s   *system.System
	ear *ear
	url string
}

const announceLines = 60

func startAnnouncer(t *testing.T) announcer {
	p := params(t)
	p.Simulate = []string{"--base", "500ms"}
	p.Env = []string{
		"PENSTOCK_BLOB_URL=file://" + filepath.ToSlash(filepath.Join(t.TempDir(), "blobs")), "PENSTOCK_BACKLOG_CHECK=false",
		"PENSTOCK_WEBHOOK_ALLOW_PRIVATE=true",
	}
	s := start(t, p)
	e, url := openEar(t, s)
	return announcer{t, s, e, url}
}

func (a announcer) create(ctx context.Context) string {
	a.t.Helper()
	base := a.s.Producers[0].URL
	order := fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"1h","webhook":{"url":%q}}`,
		uploadLines(ctx, a.t, base, announceLines), a.url)
	return ask[api.Bulk](ctx, a.t, http.MethodPost, base+"/v1/batches", "application/json", strings.NewReader(order)).ID
}

func (a announcer) retrieve(ctx context.Context, id string) api.Bulk {
	a.t.Helper()
	return ask[api.Bulk](ctx, a.t, http.MethodGet, a.s.Producers[0].URL+"/v1/batches/"+id, "", nil)
}

func (a announcer) awaitStatus(ctx context.Context, id, status string) {
	a.t.Helper()
	eventually(a.t, 30*time.Second, "the batch is "+status, func() bool { return a.retrieve(ctx, id).Status == status })
}

func (a announcer) kill() {
	a.t.Helper()
	if err := a.s.Producers[0].Kill9(); err != nil {
		a.t.Fatal(err)
	}
}

func (a announcer) restart(ctx context.Context) {
	a.t.Helper()
	if err := a.s.Producers[0].Restart(ctx); err != nil {
		a.t.Fatal(err)
	}
}

// heard is how often the end of a batch was told, by id of its event.
func (a announcer) heard(id string) map[string]int {
	a.ear.mu.Lock()
	defer a.ear.mu.Unlock()
	return maps.Clone(a.ear.events[task.ID(id)])
}

// whole expects that a batch is complete, and that its end is told under one id.
func (a announcer) whole(ctx context.Context, id string) {
	a.t.Helper()
	a.awaitStatus(ctx, id, "completed")
	b := a.retrieve(ctx, id)
	if b.RequestCounts != (api.BulkCounts{Total: announceLines, Completed: announceLines}) {
		a.t.Fatalf("the batch is %+v", b)
	}
	if n := len(readLines(ctx, a.t, a.s.Producers[0].URL, *b.OutputFileID)); n != announceLines {
		a.t.Errorf("%d lines came out; want %d", n, announceLines)
	}
	eventually(a.t, 30*time.Second, "its end is noted as told", func() bool { return readBatch(ctx, a.t, id).told })
	eventually(a.t, 30*time.Second, "its end is told", func() bool { return len(a.heard(id)) > 0 })
	if got := a.heard(id); len(got) != 1 || got[webhook.EventID(id, 0)] == 0 {
		a.t.Errorf("told as %v; want only %s", got, webhook.EventID(id, 0))
	}
	announced := readBatch(ctx, a.t, id).announced
	for _, w := range announced {
		if string(w.Event) != string(announced[0].Event) {
			a.t.Errorf("announced as %s, and before as %s", w.Event, announced[0].Event)
		}
	}
}

// TestABatchAndItsWebhookSurviveAKillAroundItsEnd kills the process that runs
// batches with kill -9 at the moments around their ends: when every line has
// been answered and nothing of it is written, when the end is written and nobody
// was told, and when it is announced and that is not noted. Kafka is made to
// take no more at these points, so that the moment is no matter of luck.
func TestABatchAndItsWebhookSurviveAKillAroundItsEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	a, g := startAnnouncer(t), newGate(t, topic.Control, topic.Webhooks)

	g.shut(ctx, topic.Webhooks)
	ended := a.create(ctx)
	a.awaitStatus(ctx, ended, "completed")
	answered := a.create(ctx)
	a.awaitStatus(ctx, answered, "in_progress")
	g.shut(ctx, topic.Control)
	eventually(t, 30*time.Second, "every line is answered", func() bool {
		return len(executions(t, a.s.Simulators[0]).Counts) == 2*announceLines
	})
	a.kill()
	if got := readBatch(ctx, t, ended); !got.ended || len(got.announced) > 0 {
		t.Fatalf("it was to be killed between the end and its announcement: %+v", got)
	}
	if got := readBatch(ctx, t, answered); got.ended {
		t.Fatalf("it was to be killed before the end: %+v", got)
	}
	g.open(ctx, topic.Control, topic.Webhooks)
	a.restart(ctx)
	a.whole(ctx, ended)
	a.whole(ctx, answered)

	g.shut(ctx, topic.Webhooks)
	announced := a.create(ctx)
	a.awaitStatus(ctx, announced, "completed")
	g.shut(ctx, topic.Control)
	g.open(ctx, topic.Webhooks)
	eventually(t, 30*time.Second, "the end is announced", func() bool { return len(readBatch(ctx, t, announced).announced) > 0 })
	a.kill()
	if got := readBatch(ctx, t, announced); got.told {
		t.Fatalf("it was to be killed before it noted the announcement: %+v", got)
	}
	g.open(ctx, topic.Control)
	a.restart(ctx)
	a.whole(ctx, announced)
	if n := len(readBatch(ctx, t, announced).announced); n < 2 {
		t.Errorf("announced %d times; who took over could not know of the first", n)
	}
	if ran := executions(t, a.s.Simulators[0]); ran.Total != 3*announceLines {
		t.Errorf("%d executions of %d lines", ran.Total, 3*announceLines)
	}
	for _, id := range []string{ended, answered, announced} {
		t.Logf("%s: announced %d times, told %v", id, len(readBatch(ctx, t, id).announced), a.heard(id))
	}
}
