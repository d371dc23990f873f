package kafkaclient_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

func setup(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, *kgo.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: cluster.ListenAddrs(), ClientID: "test"},
		slog.New(slog.DiscardHandler), kafkaclient.ProducerOpts(1<<20)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cluster, cl
}

func plan(t *testing.T, p topic.Params) []topic.Topic {
	t.Helper()
	out, err := topic.Plan(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEnsureTopics(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	t.Run("creates the plan, and a second time changes nothing", func(t *testing.T) {
		_, cl := setup(t)
		want := plan(t, topic.Params{Replication: 1, Pools: []string{"default", "embed"}})
		for range 2 {
			if err := kafkaclient.EnsureTopics(ctx, cl, want, quiet); err != nil {
				t.Fatal(err)
			}
		}
		have, err := kadm.NewClient(cl).ListTopics(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(have) != len(want) {
			t.Errorf("cluster has %d topics, the plan %d", len(have), len(want))
		}
		n, err := kafkaclient.Partitions(ctx, cl, topic.Tasks("embed", task.Bulk))
		if err != nil || n != 12 {
			t.Errorf("Partitions = %d, %v; want 12", n, err)
		}
	})
	t.Run("returns once the new topics can be written", func(t *testing.T) {
		cluster, cl := setup(t)
		asked := 0
		cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if asked++; asked > 2 {
				return nil, nil, false
			}
			cluster.KeepControl()
			return notServed(req.(*kmsg.ListOffsetsRequest)), nil, true
		})
		if err := kafkaclient.EnsureTopics(ctx, cl, plan(t, topic.Params{Replication: 1}), quiet); err != nil {
			t.Fatal(err)
		}
		if asked < 3 {
			t.Errorf("returned after %d answers, of which two said that a partition is not served yet", asked)
		}
	})
	for _, name := range []string{topic.Results, topic.Webhooks, topic.Conversations} {
		t.Run("refuses another partition count of "+name, func(t *testing.T) {
			cluster, cl := setup(t)
			if err := cluster.CreateTopic(name, 3, nil); err != nil {
				t.Fatal(err)
			}
			err := kafkaclient.EnsureTopics(ctx, cl, plan(t, topic.Params{Replication: 1}), quiet)
			if !errors.Is(err, kafkaclient.ErrTopics) || !strings.Contains(err.Error(), "set partitions to 3") {
				t.Errorf("err = %v; want ErrTopics with the cure", err)
			}
		})
		t.Run("refuses to have "+name+" compacted", func(t *testing.T) {
			cluster, cl := setup(t)
			if err := cluster.CreateTopic(name, 12, map[string]string{"cleanup.policy": "compact"}); err != nil {
				t.Fatal(err)
			}
			err := kafkaclient.EnsureTopics(ctx, cl, plan(t, topic.Params{Replication: 1}), quiet)
			if !errors.Is(err, kafkaclient.ErrTopics) {
				t.Errorf("err = %v; want ErrTopics", err)
			}
		})
	}
	for says, c := range map[string]struct{ topic, key, value string }{
		"before its deadline; set it to -1":      {topic.Tasks("default", task.Bulk), "retention.bytes", "1000000"},
		"less than the planned 259200000":        {topic.Results, "retention.ms", "86400000"},
		"less than the planned 691200000":        {topic.Webhooks, "retention.ms", "259200000"},
		"3600000, less than the planned":         {topic.Tasks("default", task.Standard), "retention.ms", "3600000"},
		"CreateTime; it must be LogAppendTime":   {topic.Tiers()[0].Topic(), "message.timestamp.type", "CreateTime"},
		"type=CreateTime; it must be LogAppendT": {topic.Clock, "message.timestamp.type", "CreateTime"},
	} {
		t.Run("refuses "+c.key+"="+c.value+" of "+c.topic, func(t *testing.T) {
			cluster, cl := setup(t)
			want := plan(t, topic.Params{Replication: 1})
			i := slices.IndexFunc(want, func(p topic.Topic) bool { return p.Name == c.topic })
			if err := cluster.CreateTopic(c.topic, want[i].Partitions, map[string]string{c.key: c.value}); err != nil {
				t.Fatal(err)
			}
			err := kafkaclient.EnsureTopics(ctx, cl, want, quiet)
			if !errors.Is(err, kafkaclient.ErrTopics) || !strings.Contains(err.Error(), says) {
				t.Errorf("err = %v; want ErrTopics with %q", err, says)
			}
		})
	}
	t.Run("takes topics that are kept longer", func(t *testing.T) {
		cluster, cl := setup(t)
		for name, ms := range map[string]string{topic.Results: "-1", topic.Tasks("default", task.Bulk): "999999999999"} {
			if err := cluster.CreateTopic(name, 12, map[string]string{"retention.ms": ms}); err != nil {
				t.Fatal(err)
			}
		}
		if err := kafkaclient.EnsureTopics(ctx, cl, plan(t, topic.Params{Replication: 1}), quiet); err != nil {
			t.Error(err)
		}
	})
	t.Run("refuses three replicas with one in sync", func(t *testing.T) {
		_, cl := setup(t, kfake.NumBrokers(3))
		bad := plan(t, topic.Params{Replication: 3, MinISR: 1})
		err := kafkaclient.EnsureTopics(ctx, cl, bad, quiet)
		if !errors.Is(err, kafkaclient.ErrTopics) || !strings.Contains(err.Error(), "min.insync.replicas") {
			t.Errorf("err = %v; want ErrTopics about min.insync.replicas", err)
		}
	})
}

// notServed is the answer of a broker that has heard of its partitions and does
// not serve them yet.
func notServed(req *kmsg.ListOffsetsRequest) kmsg.Response {
	res := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	for _, asked := range req.Topics {
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic = asked.Topic
		for _, p := range asked.Partitions {
			partition := kmsg.NewListOffsetsResponseTopicPartition()
			partition.Partition, partition.ErrorCode = p.Partition, kerr.UnknownTopicOrPartition.Code
			topic.Partitions = append(topic.Partitions, partition)
		}
		res.Topics = append(res.Topics, topic)
	}
	return res
}

func TestPartitionerAgreesWithTheSchema(t *testing.T) {
	const n = 12
	per := kafkaclient.Partitioner().ForTopic(topic.Results)
	for _, id := range []task.ID{"task_a", "task_bb", "task_ccc", "task_dddd", "x"} {
		rec := &kgo.Record{Key: []byte(id)}
		if got, want := per.Partition(rec, n), int(topic.ResultsPartition(id, n)); got != want {
			t.Errorf("%s: client places it in %d, schema in %d", id, got, want)
		}
		kafkaclient.PinPartition(rec, 0)
		if got := per.Partition(rec, n); got != 0 {
			t.Errorf("%s: pinned to 0, placed in %d", id, got)
		}
		kafkaclient.PinPartition(rec, 11)
		if got := per.Partition(rec, n); got != 11 {
			t.Errorf("%s: pinned to 11, placed in %d", id, got)
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := kafkaclient.Config{Brokers: []string{"nohost"}, Username: "u"}.Validate()
	if err == nil || !strings.Contains(err.Error(), "nohost") || !strings.Contains(err.Error(), "password") {
		t.Errorf("err = %v; want both faults", err)
	}
}
