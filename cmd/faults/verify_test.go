//go:build faults || chaos || soak

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/cmd/system/topiclog"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// drained waits until every task has its terminal on Kafka, and returns how
// long that took; false when it did not within the limit.
func (r *rig) drained(t *testing.T, ids []task.ID, within time.Duration) (time.Duration, bool) {
	t.Helper()
	return eventually(t, within, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		log, err := topiclog.Outcomes(ctx, r.Kafka.Addrs)
		return err == nil && len(missing(log, ids)) == 0
	})
}

func missing(log map[task.ID]*topiclog.Outcome, ids []task.ID) []task.ID {
	var out []task.ID
	for _, id := range ids {
		if o := log[id]; o == nil || o.State.Open() {
			out = append(out, id)
		}
	}
	return out
}

// broken holds what a beat was told against Kafka's log and the polls: nothing
// accepted is lost (I1), and what is shown is the one that won (I2, I3). A call
// without a clear answer is asked about again first, under its key.
func (r *rig) broken(t *testing.T, calls []call) []string {
	t.Helper()
	ids := append(accepted(calls), r.settleUnknown(t, calls)...)
	r.drained(t, ids, time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	log, err := topiclog.Outcomes(ctx, r.Kafka.Addrs)
	must(t, err)
	var out []string
	if lost := missing(log, ids); len(lost) > 0 {
		out = append(out, fmt.Sprintf("I1: %d accepted tasks have no terminal, such as %s", len(lost), lost[0]))
	}
	if n, example := r.misread(t, log, ids); n > 0 {
		out = append(out, fmt.Sprintf("I3: %d polls tell another terminal than the log, such as of %s", n, example))
	}
	return out
}

// misread counts the tasks of which a poll does not tell the winner.
func (r *rig) misread(t *testing.T, log map[task.ID]*topiclog.Outcome, ids []task.ID) (n int, example task.ID) {
	t.Helper()
	for _, id := range ids {
		o := log[id]
		if o == nil || o.State.Open() {
			continue
		}
		won := o.Wins[len(o.Wins)-1]
		got, err := r.poll(t, id)
		same := err == nil && got.Status == won.Status && got.Generation == o.State.Generation
		if same && won.Output != nil {
			same = got.Output != nil && got.Output.Text == won.Output.Text
		}
		if !same {
			t.Logf("task %s: log %s, poll %s, %v", id, won.Status, got.Status, err)
			n, example = n+1, id
		}
	}
	return n, example
}

// poll asks for a task as a patient client does, until it has ended.
func (r *rig) poll(t *testing.T, id task.ID) (api.Task, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return r.Client().Wait(ctx, id)
}

// client speaks to the brokers around the links.
func (r *rig) client(t *testing.T) *kgo.Client {
	t.Helper()
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: r.Kafka.Addrs, ClientID: "test"}, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// controller is the broker that leads the cluster's metadata.
func (r *rig) controller(t *testing.T) int {
	t.Helper()
	req := kmsg.NewPtrDescribeQuorumRequest()
	of := kmsg.NewDescribeQuorumRequestTopic()
	of.Topic, of.Partitions = "__cluster_metadata", []kmsg.DescribeQuorumRequestTopicPartition{{}}
	req.Topics = append(req.Topics, of)
	res, err := req.RequestWith(t.Context(), r.client(t))
	must(t, err)
	return int(res.Topics[0].Partitions[0].LeaderID)
}

// idleTopic belongs to the idle client alone.
const idleTopic = "idle"

// led is a partition of the idle topic that a broker leads.
func (r *rig) led(t *testing.T, broker int) int32 {
	t.Helper()
	adm := kadm.NewClient(r.client(t))
	_, err := adm.CreateTopic(t.Context(), 12, -1, nil, idleTopic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatal(err)
	}
	var found int32
	if _, ok := eventually(t, 20*time.Second, func() bool {
		topics, err := adm.ListTopics(t.Context(), idleTopic)
		if err != nil {
			return false
		}
		for _, p := range topics[idleTopic].Partitions {
			if found = p.Partition; int(p.Leader) == broker {
				return true
			}
		}
		return false
	}); !ok {
		t.Fatalf("broker %d leads nothing", broker)
	}
	return found
}

// awaitInSync waits until every replica has caught up, and returns the lead of
// each partition to the broker that should have it.
func (r *rig) awaitInSync(t *testing.T) {
	t.Helper()
	adm := kadm.NewClient(r.client(t))
	if _, ok := eventually(t, time.Minute, func() bool {
		topics, err := adm.ListTopicsWithInternal(t.Context())
		if err != nil {
			return false
		}
		for _, tp := range topics {
			for _, p := range tp.Partitions {
				if len(p.ISR) < len(p.Replicas) {
					return false
				}
			}
		}
		return true
	}); !ok {
		t.Fatal("the replicas do not catch up")
	}
	// A broker that was away leads nothing until somebody says so, and could not
	// be wronged again.
	_, err := adm.ElectLeaders(t.Context(), kadm.ElectPreferredReplica, nil)
	must(t, err)
}
