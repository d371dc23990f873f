package tasktopic_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/schema/wire"
)

type bundle struct {
	cluster *kfake.Cluster
	cl      *kgo.Client
	pub     *tasktopic.Publisher
	task    *task.Task
}

func setup(t *testing.T, bufferedBytes int) bundle {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	quiet := slog.New(slog.DiscardHandler)
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: cluster.ListenAddrs(), ClientID: "test"}, quiet,
		kafkaclient.ProducerOpts(bufferedBytes)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	plan, err := topic.Plan(topic.Params{Replication: 1, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := kafkaclient.EnsureTopics(t.Context(), cl, plan, quiet); err != nil {
		t.Fatal(err)
	}
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	return bundle{cluster, cl, tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: 12, Wait: 2 * time.Second}), &task.Task{
		SchemaVersion: task.SchemaVersion, ID: minter.New("dev", now), Kind: task.Completion, Source: task.SourceAPI,
		Tenant: "dev", Model: "sim-chat", Class: task.Standard, Payload: task.Payload{Text: "hello"},
		Timestamp: now, Deadline: now.Add(time.Hour),
	}}
}

// read returns the record at an acknowledged place.
func (b bundle) read(t *testing.T, a tasktopic.Ack) *kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.cluster.ListenAddrs()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		a.Topic: {a.Partition: kgo.NewOffset().At(a.Offset)},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	fetches := cl.PollRecords(ctx, 1)
	if len(fetches.Records()) != 1 {
		t.Fatalf("read %+v: %v", a, fetches.Err())
	}
	return fetches.Records()[0]
}

func TestTaskKeepsItsBytesFromHopToHop(t *testing.T) {
	b := setup(t, 1<<20)
	ctx := t.Context()
	ack, err := b.pub.Task(ctx, b.task, "default", task.Progress{})
	if err != nil {
		t.Fatal(err)
	}
	if ack.Topic != "penstock.tasks.default.standard" {
		t.Errorf("topic = %s", ack.Topic)
	}
	first := tasktopic.FromKgo(b.read(t, ack))
	tier := topic.Tiers()[0]
	ack, err = b.pub.Republish(ctx, first, b.task, tier.Topic(), task.Progress{Hop: 1, Attempts: 2, ReturnTopic: ack.Topic})
	if err != nil {
		t.Fatal(err)
	}
	rec := b.read(t, ack)
	if string(rec.Value) != string(first.Value) || string(rec.Key) != string(first.Key) {
		t.Error("republishing changed the record's bytes")
	}
	got, progress, err := wire.DecodeTask(tasktopic.FromKgo(rec))
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != b.task.ID || progress.Hop != 1 || progress.Attempts != 2 || progress.ReturnTopic != "penstock.tasks.default.standard" {
		t.Errorf("decoded %+v with %+v", got, progress)
	}
	letterAck, err := b.pub.DeadLetter(ctx, first, deadletter.Letter{
		TaskID: b.task.ID, Disposition: deadletter.Exhausted, Code: fault.Unavailable, DeadAt: b.task.Timestamp,
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(b.read(t, letterAck).Value) != string(first.Value) {
		t.Error("the dead letter changed the record's bytes")
	}
}

func TestTerminalGoesToItsPartition(t *testing.T) {
	b := setup(t, 1<<20)
	end := &terminal.Terminal{SchemaVersion: task.SchemaVersion, TaskID: b.task.ID, Status: task.Succeeded, Tenant: "dev", EndedAt: b.task.Timestamp}
	ack, err := b.pub.Terminal(t.Context(), end)
	if err != nil {
		t.Fatal(err)
	}
	if want := topic.ResultsPartition(b.task.ID, 12); ack.Partition != want {
		t.Errorf("partition = %d, want %d", ack.Partition, want)
	}
	if _, err := wire.DecodeTerminal(tasktopic.FromKgo(b.read(t, ack))); err != nil {
		t.Error(err)
	}
}

func TestResultsEndBehindWhatWasAcknowledged(t *testing.T) {
	b := setup(t, 1<<20)
	end := &terminal.Terminal{SchemaVersion: task.SchemaVersion, TaskID: b.task.ID, Status: task.Succeeded, Tenant: "dev", EndedAt: b.task.Timestamp}
	for n := range int64(3) {
		if got, err := b.pub.ResultsEnd(t.Context(), b.task.ID); err != nil || got != n {
			t.Errorf("%d, %v; want %d", got, err, n)
		}
		if _, err := b.pub.Terminal(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := tasktopic.NewPublisher(b.cl, tasktopic.Params{ResultsPartitions: 1000})
	if got, err := elsewhere.ResultsEnd(t.Context(), b.task.ID); err == nil {
		t.Errorf("a partition that is not there ends at %d", got)
	}
}

func TestAWebhookGoesToThePartitionOfItsResults(t *testing.T) {
	b := setup(t, 1<<20)
	w := &webhook.Record{
		SchemaVersion: task.SchemaVersion, Step: webhook.Registered, TaskID: b.task.ID, Tenant: "dev", At: b.task.Timestamp,
		Webhook: &task.Webhook{URL: "https://example.com/hook"},
	}
	heard := make(chan tasktopic.Ack, 2)
	ack, err := b.pub.Webhook(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	heard <- ack
	b.pub.WebhookAsync(w, func(a tasktopic.Ack, err error) {
		if err != nil {
			t.Error(err)
		}
		heard <- a
	})
	for range 2 {
		ack := <-heard
		if want := topic.ResultsPartition(b.task.ID, 12); ack.Partition != want || ack.Topic != topic.Webhooks {
			t.Errorf("%s, partition %d; want %d", ack.Topic, ack.Partition, want)
		}
		got, err := wire.DecodeWebhook(tasktopic.FromKgo(b.read(t, ack)))
		if err != nil || got.Webhook.URL != w.Webhook.URL {
			t.Errorf("read %+v, %v", got, err)
		}
	}
}

func TestErrorsSayWhetherTheRecordMayExist(t *testing.T) {
	t.Run("a record over the topic's limit was not written", func(t *testing.T) {
		b := setup(t, 16<<20)
		b.task.Payload.Text = incompressible(2 << 20)
		_, err := b.pub.Task(t.Context(), b.task, "default", task.Progress{})
		if !errors.Is(err, tasktopic.ErrTooLarge) {
			t.Errorf("err = %v; want ErrTooLarge", err)
		}
	})
	t.Run("a full buffer says so at once", func(t *testing.T) {
		b := setup(t, 4096)
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
		b.task.Payload.Text = strings.Repeat("x", 3000)
		rec, err := wire.EncodeTask(b.task, task.Progress{}, "")
		if err != nil {
			t.Fatal(err)
		}
		b.pub.RepublishAsync(rec, b.task, topic.Tasks("default", task.Standard), task.Progress{}, func(tasktopic.Ack, error) {})
		began := time.Now()
		_, err = b.pub.Task(t.Context(), b.task, "default", task.Progress{})
		if !errors.Is(err, tasktopic.ErrFull) || time.Since(began) > time.Second {
			t.Errorf("err = %v; want ErrFull", err)
		}
	})
	t.Run("a broker that refuses leaves the outcome unknown", func(t *testing.T) {
		b := setup(t, 1<<20)
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: -1})
		_, err := b.pub.Task(t.Context(), b.task, "default", task.Progress{})
		if !errors.Is(err, tasktopic.ErrUnknown) {
			t.Errorf("err = %v; want ErrUnknown", err)
		}
	})
	t.Run("a caller that hangs up does not cancel the produce", func(t *testing.T) {
		b := setup(t, 1<<20)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.pub.Task(ctx, b.task, "default", task.Progress{}); err != nil {
			t.Errorf("err = %v; want an acknowledgement", err)
		}
	})
}

// incompressible returns n characters that a codec cannot shrink below half.
func incompressible(n int) string {
	out := make([]byte, n)
	state := uint32(2463534242)
	for i := range out {
		state ^= state << 13
		state ^= state >> 17
		state ^= state << 5
		out[i] = 'A' + byte(state%57)
		if out[i] == '\\' {
			out[i] = '_'
		}
	}
	return string(out)
}
