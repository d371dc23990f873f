package backlog_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/producer/backlog"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const maxAge = 36 * time.Hour

type bundle struct {
	cluster *kfake.Cluster
	cl      *kgo.Client
	adm     *kadm.Client
	watch   *backlog.Watch
	reg     *prometheus.Registry
}

func setup(t *testing.T) bundle {
	t.Helper()
	plan, err := topic.Plan(topic.Params{Partitions: 2, Replication: 1})
	if err != nil {
		t.Fatal(err)
	}
	opts := []kfake.Opt{kfake.NumBrokers(1)}
	for _, p := range plan {
		opts = append(opts, kfake.SeedTopics(p.Partitions, p.Name))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close(); cluster.Close() })
	reg := prometheus.NewRegistry()
	w := backlog.New(cl, backlog.Params{Pools: []string{"default"}, MaxAge: maxAge}, slog.New(slog.DiscardHandler), reg)
	return bundle{cluster, cl, kadm.NewClient(cl), w, reg}
}

// age writes a record that is so old, and returns its offset.
func (b bundle) age(t *testing.T, to string, old time.Duration) int64 {
	t.Helper()
	r := &kgo.Record{Topic: to, Partition: 1, Value: []byte("{}"), Timestamp: time.Now().Add(-old)}
	if err := b.cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return r.Offset
}

func (b bundle) commit(t *testing.T, group, to string, at int64) {
	t.Helper()
	var os kadm.Offsets
	os.AddOffset(to, 1, at, -1)
	if err := b.adm.CommitAllOffsets(t.Context(), group, os); err != nil {
		t.Fatal(err)
	}
}

func (b bundle) over(t *testing.T) bool {
	t.Helper()
	if err := b.watch.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b.watch.Over()
}

func TestTheVerdictFollowsTheOldestUnsettledRecord(t *testing.T) {
	b := setup(t)
	standard, group := topic.Tasks("default", task.Standard), topic.WorkerGroup("default")
	if b.over(t) {
		t.Fatal("over without a record")
	}
	old := b.age(t, standard, 30*time.Hour)
	b.age(t, standard, 28*time.Hour)
	if !b.over(t) {
		t.Error("not over at 83 %, with no watermark at all")
	}
	b.commit(t, group, standard, old)
	if !b.over(t) {
		t.Error("not over with the watermark at the old record")
	}
	b.commit(t, group, standard, old+1)
	if b.over(t) {
		t.Error("over although the oldest unsettled record is at 78 % of the longest life")
	}
}

func TestARecordThatIsWrittenInTheMiddleOfALookIsNotOld(t *testing.T) {
	b := setup(t)
	standard := topic.Tasks("default", task.Standard)
	// The client knows all that it needs to write: its other connections wait then.
	if err := b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: standard, Partition: 0}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	byTime, written := false, false
	b.cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		switch at := req.(*kmsg.ListOffsetsRequest).Topics[0].Partitions[0].Timestamp; {
		case at > 0:
			byTime = true
		case byTime && !written: // the end is asked for where no record is young enough
			written = true
			b.cluster.SleepControl(func() { b.age(t, standard, 0) })
		}
		return nil, nil, false
	})
	if b.over(t) {
		t.Error("a record of this moment made it over")
	}
	if !written {
		t.Error("nothing was written in the middle of the look")
	}
}

func TestARetryTierCountsToo(t *testing.T) {
	b := setup(t)
	b.age(t, topic.Tiers()[3].Topic(), 35*time.Hour)
	if !b.over(t) {
		t.Error("an old record in a tier was not seen")
	}
}

func TestAWatermarkBelowTheLogIsCounted(t *testing.T) {
	b := setup(t)
	standard := topic.Tasks("default", task.Standard)
	for range 3 {
		b.age(t, standard, time.Minute)
	}
	b.commit(t, topic.WorkerGroup("default"), standard, 0)
	var os kadm.Offsets
	os.AddOffset(standard, 1, 2, -1)
	if _, err := b.adm.DeleteRecords(t.Context(), os); err != nil {
		t.Fatal(err)
	}
	if b.over(t) {
		t.Error("young records made it over")
	}
	if got, err := testutil.GatherAndCount(b.reg, "penstock_producer_backlog_lost_partitions"); err != nil || got != 1 {
		t.Fatal(got, err)
	}
	families, err := b.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "penstock_producer_backlog_lost_partitions" && f.GetMetric()[0].GetGauge().GetValue() != 1 {
			t.Error("the partition that lost records is not counted")
		}
	}
}

func TestTheLastVerdictStandsWhilePollsFail(t *testing.T) {
	b := setup(t)
	b.age(t, topic.Tasks("default", task.Bulk), 35*time.Hour)
	if !b.over(t) {
		t.Fatal("not over")
	}
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Err: kerr.GroupAuthorizationFailed, Count: -1})
	if err := b.watch.Poll(t.Context()); err == nil {
		t.Error("a failed poll did not say so")
	}
	if !b.watch.Over() {
		t.Error("a failed poll changed the verdict")
	}
	t.Run("and Run ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b.watch.Run(ctx)
	})
}
