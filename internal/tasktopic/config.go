package tasktopic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/topic"
)

// Config is what every service must be told alike: into how many partitions
// records go and how long they, and what is made of them, live. Embed it in a
// service's configuration.
type Config struct {
	Partitions int32         `koanf:"partitions" usage:"partitions of each topic; that of penstock.results is fixed for life"`
	Retention  time.Duration `koanf:"retention" usage:"how long the topics keep tasks and results"`
	MaxTaskAge time.Duration `koanf:"max_task_age" usage:"the furthest deadline a task may have; at most half of retention"`
	ResultTTL  time.Duration `koanf:"result_ttl" usage:"how long results and token streams can be read"`
}

// DefaultConfig is three days of records and one of results.
func DefaultConfig() Config {
	return Config{Partitions: 12, Retention: 72 * time.Hour, MaxTaskAge: 36 * time.Hour, ResultTTL: 24 * time.Hour}
}

// Validate returns every fault at once, by the name the operator typed. A
// result must be readable in the log for as long as a task may wait and its
// result be asked for, or a lost Redis could not be rebuilt.
func (c Config) Validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.Partitions < 1, "partitions: must be at least 1")
	fault(c.MaxTaskAge <= 0 || c.MaxTaskAge > c.Retention/2, "max_task_age: must be above 0 and at most half of retention (%s)", c.Retention)
	fault(c.ResultTTL <= 0 || c.MaxTaskAge+c.ResultTTL > c.Retention, "result_ttl: must be above 0, and with max_task_age at most retention (%s)", c.Retention)
	return errors.Join(errs...)
}

// BlobLife is how long a blob must last after it was put: as long as a record
// of any topic may refer to it.
func (c Config) BlobLife() time.Duration {
	return topic.Params{Retention: c.Retention}.ReferenceLife()
}

// Ensure creates what is missing of the topics of these pools, with as many
// replicas as the brokers can hold, and refuses what must not be worked with:
// see kafkaclient.EnsureTopics.
func (c Config) Ensure(ctx context.Context, cl *kgo.Client, pools []string, log *slog.Logger) error {
	plan, err := c.plan(ctx, cl, pools)
	if err != nil {
		return err
	}
	return kafkaclient.EnsureTopics(ctx, cl, plan, log)
}

// EnsureResults is Ensure for the topics of the results service: results, the
// webhooks that are made of them, conversations, and the clock.
func (c Config) EnsureResults(ctx context.Context, cl *kgo.Client, log *slog.Logger) error {
	plan, err := c.plan(ctx, cl, nil)
	if err != nil {
		return err
	}
	plan = slices.DeleteFunc(plan, func(t topic.Topic) bool {
		return !slices.Contains([]string{topic.Results, topic.Webhooks, topic.Conversations, topic.Clock}, t.Name)
	})
	return kafkaclient.EnsureTopics(ctx, cl, plan, log)
}

func (c Config) plan(ctx context.Context, cl *kgo.Client, pools []string) ([]topic.Topic, error) {
	replication, err := kafkaclient.Replication(ctx, cl)
	if err != nil {
		return nil, err
	}
	return topic.Plan(topic.Params{Pools: pools, Partitions: c.Partitions, Replication: replication, Retention: c.Retention})
}
