package consume_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/worker/consume"
)

// cable is one member's way to the broker, which a test cuts.
type cable struct {
	network *kfake.VirtualNetwork

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (c *cable) dial(ctx context.Context, network, host string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, errors.New("the cable is cut")
	}
	conn, err := c.network.DialContext(ctx, network, host)
	c.conns = append(c.conns, conn)
	return conn, err
}

func (c *cable) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

// bubble is a broker on a network that lives in a bubble, with one partition
// of ten records.
func bubble(t *testing.T) (*kfake.Cluster, *kfake.VirtualNetwork) {
	t.Helper()
	var network kfake.VirtualNetwork
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, lane), kfake.ListenFn(network.Listen), kfake.Ports(9092))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	produceTo(t, kafkaclient.Config{Brokers: fake.ListenAddrs(), ClientID: "test", Dial: network.DialContext}, 1, 10)
	return fake, &network
}

// over joins over its own cable and returns its deliveries so far.
func over(t *testing.T, fake *kfake.Cluster, c *cable, p consume.Params) *collector {
	t.Helper()
	sink := newCollector()
	cfg := kafkaclient.Config{Brokers: fake.ListenAddrs(), ClientID: "test", Dial: c.dial}
	p.Group, p.Topics = group, []string{lane}
	g, err := consume.Open(cfg, p, sink, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { _ = g.Poll(ctx) })
	loops.Go(func() { g.CommitLoop(ctx) })
	t.Cleanup(func() {
		cancel()
		loops.Wait()
		closing, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		_ = g.Close(closing) // a member that was cut off has nothing to commit
	})
	return sink
}

func TestProveOwned(t *testing.T) {
	t.Run("is nil for an owner, and one commit serves all who ask at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake, network := bubble(t)
			var commits atomic.Int64
			fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
				fake.KeepControl()
				commits.Add(1)
				fake.SleepControl(func() { time.Sleep(10 * time.Millisecond) }) // all have asked before the first is answered
				return nil, nil, false
			})
			sink := over(t, fake, &cable{network: network}, consume.Params{CommitInterval: time.Hour})
			got := sink.until(t, "the records", atLeast(10))
			synctest.Wait()
			before := commits.Load()
			var asking sync.WaitGroup
			for range 50 {
				asking.Go(func() {
					if err := got[0].ProveOwned(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			asking.Wait()
			if n := commits.Load() - before; n < 1 || n > 2 { // one may have been under way when the others asked
				t.Errorf("%d commits for 50 questions", n)
			}
		})
	})
	t.Run("needs a commit that begins after the call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake, network := bubble(t)
			sink := over(t, fake, &cable{network: network}, consume.Params{CommitInterval: time.Hour})
			got := sink.until(t, "the records", atLeast(10))
			if err := got[0].ProveOwned(t.Context()); err != nil {
				t.Fatal(err)
			}
			fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
				return refused(req, kerr.UnknownMemberID), nil, true
			})
			if err := got[0].ProveOwned(t.Context()); !errors.Is(err, kerr.UnknownMemberID) {
				t.Errorf("%v after a commit that was refused", err)
			}
			if err := got[0].ProveOwned(t.Context()); err != nil {
				t.Errorf("%v once commits are taken again", err)
			}
		})
	})
	t.Run("is refused to a member that was expelled and does not know yet", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake, network := bubble(t)
			sink := over(t, fake, &cable{network: network}, consume.Params{CommitInterval: time.Hour})
			got := sink.until(t, "the records", atLeast(10))
			expel(t, fake, network)
			if got[0].Revoked() {
				t.Fatal("the client knows without a heartbeat")
			}
			if err := got[0].ProveOwned(t.Context()); !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.IllegalGeneration) {
				t.Errorf("it proved: %v", err)
			}
			time.Sleep(4 * time.Second) // a heartbeat tells it
			if err := got[0].ProveOwned(t.Context()); !errors.Is(err, consume.ErrNotOwned) {
				t.Errorf("after its heartbeat: %v", err)
			}
		})
	})
	t.Run("ends with its context when the broker does not answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake, network := bubble(t)
			c := &cable{network: network}
			sink := over(t, fake, c, consume.Params{CommitInterval: time.Hour})
			got := sink.until(t, "the records", atLeast(10))
			c.sever()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			began := time.Now()
			if err := got[0].ProveOwned(ctx); err == nil || time.Since(began) > 3*time.Second {
				t.Errorf("%v after %s", err, time.Since(began))
			}
		})
	})
}

func TestACommitDoesNotReachATopicMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, network := bubble(t)
		c := &cable{network: network}
		sink := over(t, fake, c, consume.Params{CommitInterval: time.Hour})
		got := sink.until(t, "the records", atLeast(10))
		cl, err := kafkaclient.New(kafkaclient.Config{Brokers: fake.ListenAddrs(), ClientID: "test", Dial: network.DialContext}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		admin := kadm.NewClient(cl)
		if _, err := admin.DeleteTopic(t.Context(), lane); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, lane); err != nil {
			t.Fatal(err)
		}
		for _, d := range got { // of the old topic
			d.Settle()
		}
		if err := got[0].ProveOwned(t.Context()); !errors.Is(err, kerr.UnknownTopicID) {
			t.Errorf("a commit of the old topic's offsets: %v", err)
		}
		offsets, err := admin.FetchOffsets(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := offsets.Lookup(lane, 0); ok && o.At >= 0 {
			t.Errorf("the new topic would be read from offset %d", o.At)
		}
	})
}

// expel has the group's only member leave without its own doing.
func expel(t *testing.T, fake *kfake.Cluster, network *kfake.VirtualNetwork) {
	t.Helper()
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: fake.ListenAddrs(), ClientID: "test", Dial: network.DialContext}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	groups, err := kadm.NewClient(cl).DescribeGroups(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	for _, m := range groups[group].Members {
		leave.Members = append(leave.Members, kmsg.LeaveGroupRequestMember{MemberID: m.MemberID})
	}
	resp, err := leave.RequestWith(t.Context(), cl)
	if err != nil || len(resp.Members) != 1 || resp.Members[0].ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
}

// refused answers a commit with the error for each of its partitions.
func refused(req kmsg.Request, err *kerr.Error) kmsg.Response {
	commit := req.(*kmsg.OffsetCommitRequest)
	resp := commit.ResponseKind().(*kmsg.OffsetCommitResponse)
	for _, t := range commit.Topics {
		to := kmsg.OffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
		for _, p := range t.Partitions {
			to.Partitions = append(to.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: err.Code})
		}
		resp.Topics = append(resp.Topics, to)
	}
	return resp
}
