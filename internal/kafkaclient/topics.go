package kafkaclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/schema/topic"
)

// ErrTopics is returned when the cluster's topics contradict the plan in a way
// that would lose or misplace records.
var ErrTopics = errors.New("topics do not fit the plan")

// leadersWithin is how long new topics may take until they can be written.
const leadersWithin = 30 * time.Second

// EnsureTopics creates what the plan has and the cluster lacks, and checks the
// rest. It refuses, with ErrTopics:
//   - another partition count of penstock.results, penstock.webhooks or
//     penstock.conversations: what is of one key must stay in one partition for
//     life;
//   - one of them compacted: compaction keeps the last record of a key, and here
//     the first wins;
//   - replication of 3 or more with one in-sync replica: acks=all would promise
//     what one disk holds;
//   - tasks, retries, results, webhooks or conversations kept for less than planned, or only up to a
//     number of bytes: an accepted task could be deleted before its deadline, or
//     its end before nobody asks for it any more;
//   - retries and clock without LogAppendTime: the waits in them are by the
//     brokers' clock.
//
// A single replica is only warned about. A topic that it created takes records
// when it returns: a broker tells of a new topic before it serves it.
func EnsureTopics(ctx context.Context, cl *kgo.Client, plan []topic.Topic, log *slog.Logger) error {
	adm := kadm.NewClient(cl)
	have, err := adm.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	var (
		errs    []error
		created []string
	)
	for _, want := range plan {
		if found, ok := have[want.Name]; ok && found.Err == nil {
			errs = append(errs, checkTopic(want, found))
			continue
		}
		errs = append(errs, createTopic(ctx, adm, want, log))
		created = append(created, want.Name)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := awaitLeaders(ctx, adm, created); err != nil {
		return err
	}
	return checkConfigs(ctx, adm, plan, log)
}

func createTopic(ctx context.Context, adm *kadm.Client, t topic.Topic, log *slog.Logger) error {
	configs := make(map[string]*string, len(t.Config))
	for k, v := range t.Config {
		configs[k] = kadm.StringPtr(v)
	}
	_, err := adm.CreateTopic(ctx, t.Partitions, t.Replication, configs, t.Name)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil // another service of ours was faster
	}
	if err != nil {
		return fmt.Errorf("create topic %s: %w", t.Name, err)
	}
	log.Info("topic created", "topic", t.Name, "partitions", t.Partitions, "replication", t.Replication)
	return nil
}

// awaitLeaders waits until every partition of the topics answers for itself.
func awaitLeaders(ctx context.Context, adm *kadm.Client, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leadersWithin)
	defer cancel()
	for tries := 0; ; tries++ {
		ends, err := adm.ListEndOffsets(ctx, topics...)
		if err == nil {
			err = ends.Error()
		}
		if err == nil {
			return nil
		}
		timer := time.NewTimer(backoff(tries))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("await the leaders of new topics: %w", err)
		}
	}
}

// placed reports whether records of a topic are placed by the number of its
// partitions, for life.
func placed(name string) bool {
	return name == topic.Results || name == topic.Webhooks || name == topic.Conversations
}

func checkTopic(want topic.Topic, found kadm.TopicDetail) error {
	if n := int32(len(found.Partitions)); placed(want.Name) && n != want.Partitions {
		return fmt.Errorf("%w: %s has %d partitions and is planned with %d; the count is fixed for life, set partitions to %d",
			ErrTopics, want.Name, n, want.Partitions, n)
	}
	return nil
}

func checkConfigs(ctx context.Context, adm *kadm.Client, plan []topic.Topic, log *slog.Logger) error {
	names := make([]string, len(plan))
	for i, t := range plan {
		names[i] = t.Name
	}
	details, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	configs, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("describe topic configs: %w", err)
	}
	wanted := make(map[string]topic.Topic, len(plan))
	for _, t := range plan {
		wanted[t.Name] = t
	}
	var errs []error
	lone := 0
	for _, rc := range configs {
		replicas := details[rc.Name].Partitions.NumReplicas()
		if replicas == 1 {
			lone++
		}
		for _, c := range rc.Configs {
			if why := unfit(c.Key, c.MaybeValue(), wanted[rc.Name], replicas); why != "" {
				errs = append(errs, fmt.Errorf("%w: %s has %s=%s%s", ErrTopics, rc.Name, c.Key, c.MaybeValue(), why))
			}
		}
	}
	if lone > 0 {
		log.Warn("topics have one replica: a lost disk loses accepted tasks", "topics", lone)
	}
	return errors.Join(errs...)
}

// unfit says what is wrong with a topic's setting; "" if nothing is.
func unfit(key, value string, want topic.Topic, replicas int) string {
	planned := want.Config[key]
	_, _, tasks := topic.ParseTasks(want.Name)
	holds := tasks || topic.IsRetry(want.Name) || placed(want.Name)
	switch {
	case key == "min.insync.replicas" && replicas >= 3 && value == "1":
		return fmt.Sprintf(" with %d replicas; set it to 2", replicas)
	case key == "cleanup.policy" && placed(want.Name) && value != planned:
		return "; it must be delete"
	case key == "message.timestamp.type" && planned != "" && value != planned:
		return "; it must be " + planned
	case key == "retention.bytes" && holds && value != planned:
		return ", which may delete a task before its deadline; set it to -1"
	case key == "retention.ms" && holds && shorter(value, planned):
		return ", less than the planned " + planned + "; raise it, or lower retention"
	}
	return ""
}

// shorter compares retention times in milliseconds; -1 is for ever.
func shorter(value, planned string) bool {
	have, err1 := strconv.ParseInt(value, 10, 64)
	want, err2 := strconv.ParseInt(planned, 10, 64)
	return err1 == nil && err2 == nil && have >= 0 && have < want
}

// Partitions returns how many partitions a topic has.
func Partitions(ctx context.Context, cl *kgo.Client, name string) (int32, error) {
	topics, err := kadm.NewClient(cl).ListTopics(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("list topic %s: %w", name, err)
	}
	t, ok := topics[name]
	if !ok || t.Err != nil {
		return 0, fmt.Errorf("topic %s: %w", name, errors.Join(kerr.UnknownTopicOrPartition, t.Err))
	}
	return int32(len(t.Partitions)), nil
}

// Replication returns the replication factor that the cluster can carry, up to
// three.
func Replication(ctx context.Context, cl *kgo.Client) (int16, error) {
	brokers, err := kadm.NewClient(cl).ListBrokers(ctx)
	if err != nil {
		return 0, fmt.Errorf("list brokers: %w", err)
	}
	return int16(min(len(brokers), 3)), nil
}
