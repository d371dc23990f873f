package topic_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"pgregory.net/rapid"
)

func TestATaskKeepsItsResultsPartition(t *testing.T) {
	// Kafka's default partitioner: (murmur2(key) & 0x7fffffff) % partitions.
	for _, c := range []struct {
		id         task.ID
		partitions int32
		want       int32
	}{
		{"21", 12, (-973932308 & 0x7fffffff) % 12},
		{"foobar", 12, (-790332482 & 0x7fffffff) % 12},
		{"foobar", 60, (-790332482 & 0x7fffffff) % 60},
		{"abc", 24, 479470107 % 24},
		{"foobar", 1, 0},
	} {
		if got := topic.ResultsPartition(c.id, c.partitions); got != c.want {
			t.Errorf("ResultsPartition(%q, %d) = %d, want %d", c.id, c.partitions, got, c.want)
		}
	}
}

func TestResultsSpreadOverEveryPartition(t *testing.T) {
	m, err := task.NewMinter(task.Secret{Number: 1, Key: make([]byte, 16)})
	if err != nil {
		t.Fatal(err)
	}
	const ids, partitions = 12_000, 12
	counts := make([]int, partitions)
	for i := range ids {
		counts[topic.ResultsPartition(m.New("acme", time.UnixMilli(int64(i))), partitions)]++
	}
	for p, n := range counts {
		if n < ids/partitions/2 || n > 2*ids/partitions {
			t.Errorf("partition %d has %d of %d ids: %v", p, n, ids, counts)
		}
	}
}

func TestParseTasksIsTheInverseOfTasks(t *testing.T) {
	pool := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?`)
	rapid.Check(t, func(r *rapid.T) {
		p, class := pool.Draw(r, "pool"), rapid.SampledFrom(task.Classes()).Draw(r, "class")
		if err := topic.CheckPool(p); err != nil {
			r.Fatal(err)
		}
		name := topic.Tasks(p, class)
		gotPool, gotClass, ok := topic.ParseTasks(name)
		if !ok || gotPool != p || gotClass != class {
			r.Fatalf("ParseTasks(%q) = %q, %q, %t", name, gotPool, gotClass, ok)
		}
	})
}

func TestOtherTopicsAreNotTasksTopics(t *testing.T) {
	others := []string{
		"", "penstock", "penstock.tasks", "penstock.tasks.", "penstock.tasks.default", "penstock.tasks..bulk",
		"x.penstock.tasks.default.bulk", topic.Results, topic.DeadLetters, topic.Control,
	}
	for _, tier := range topic.Tiers() {
		others = append(others, tier.Topic())
		if !topic.IsRetry(tier.Topic()) {
			t.Errorf("%s is not a retry topic", tier.Topic())
		}
	}
	for _, name := range others {
		if pool, class, ok := topic.ParseTasks(name); ok {
			t.Errorf("ParseTasks(%q) = %q, %q", name, pool, class)
		}
	}
	for _, name := range []string{topic.Results, topic.DeadLetters, topic.Control, topic.Tasks("retry", task.Bulk)} {
		if topic.IsRetry(name) {
			t.Errorf("%s is a retry topic", name)
		}
	}
}

func TestTheTierIsTheLargestNotAboveTheWait(t *testing.T) {
	for wait, want := range map[time.Duration]string{
		0:                               "",
		-time.Second:                    "",
		5*time.Second - time.Nanosecond: "",
		5 * time.Second:                 "5s",
		30*time.Second - 1:              "5s",
		30 * time.Second:                "30s",
		2*time.Minute - 1:               "30s",
		2 * time.Minute:                 "2m",
		10*time.Minute - 1:              "2m",
		10 * time.Minute:                "10m",
		24 * time.Hour:                  "10m",
	} {
		tier, ok := topic.TierFor(wait)
		if tier.Name != want || ok != (want != "") || tier.Delay > max(wait, 0) {
			t.Errorf("TierFor(%v) = %+v, %t, want %q", wait, tier, ok, want)
		}
	}
	for _, tier := range topic.Tiers() {
		if d, err := time.ParseDuration(tier.Name); err != nil || d != tier.Delay {
			t.Errorf("tier %s waits %v", tier.Name, tier.Delay)
		}
	}
}

func TestPoolNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"default": true, "a": true, "0": true, "gpu-a100-80g": true, strings.Repeat("a", 40): true, "a--b": true,
		"": false, "-a": false, "a-": false, "-": false, "A": false, "a.b": false, "a_b": false, "a b": false,
		"a\n": false, "ä": false, strings.Repeat("a", 41): false,
	} {
		if err := topic.CheckPool(name); (err == nil) != ok || err != nil && !errors.Is(err, topic.ErrPool) {
			t.Errorf("CheckPool(%q) = %v", name, err)
		}
	}
	if _, err := topic.Plan(topic.Params{Pools: []string{"fine", "not.fine"}}); !errors.Is(err, topic.ErrPool) {
		t.Errorf("Plan with a bad pool: %v, want ErrPool", err)
	}
	if _, err := topic.Plan(topic.Params{Pools: []string{"chat", "embed", "chat"}}); !errors.Is(err, topic.ErrPool) {
		t.Errorf("Plan with a pool named twice: %v, want ErrPool", err)
	}
}

// names of a plan, with partition counts.
func names(plan []topic.Topic) map[string]int32 {
	out := map[string]int32{}
	for _, t := range plan {
		out[t.Name] = t.Partitions
	}
	return out
}

func TestThePlanNamesEveryTopicOnce(t *testing.T) {
	plan, err := topic.Plan(topic.Params{Pools: []string{"chat", "embed"}, Partitions: 24})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int32{
		"penstock.tasks.chat.interactive": 24, "penstock.tasks.chat.standard": 24, "penstock.tasks.chat.bulk": 24,
		"penstock.tasks.embed.interactive": 24, "penstock.tasks.embed.standard": 24, "penstock.tasks.embed.bulk": 24,
		"penstock.retry.5s": 24, "penstock.retry.30s": 24, "penstock.retry.2m": 24, "penstock.retry.10m": 24,
		"penstock.results": 24, "penstock.webhooks": 24, "penstock.conversations": 24, "penstock.dead-letters": 24, "penstock.control": 1, "penstock.clock": 1,
	}
	if diff := cmp.Diff(want, names(plan)); diff != "" || len(plan) != len(want) {
		t.Errorf("%d topics (-want +got):\n%s", len(plan), diff)
	}
}

func TestThePlansDefaultsAreSafe(t *testing.T) {
	plan, err := topic.Plan(topic.Params{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := names(plan)["penstock.tasks.default.standard"]; !ok {
		t.Error("there is no default pool")
	}
	hours := map[string]int{topic.DeadLetters: 30 * 24, topic.Control: 30 * 24, topic.Clock: 1, topic.Webhooks: 8 * 24}
	for _, tp := range plan {
		keep := hours[tp.Name]
		if keep == 0 {
			keep = 3 * 24
		}
		want := map[string]string{
			"cleanup.policy":                 "delete",
			"retention.ms":                   strconv.Itoa(keep * 3600 * 1000),
			"retention.bytes":                "-1",
			"max.message.bytes":              strconv.Itoa(9 << 20),
			"min.insync.replicas":            "2",
			"unclean.leader.election.enable": "false",
		}
		if topic.IsRetry(tp.Name) || tp.Name == topic.Clock {
			want["message.timestamp.type"] = "LogAppendTime"
		}
		if diff := cmp.Diff(want, tp.Config); diff != "" || tp.Replication != 3 {
			t.Errorf("%s, replication %d (-want +got):\n%s", tp.Name, tp.Replication, diff)
		}
	}
}

func TestNoPlanCompactsOrLimitsBytes(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		plan, err := topic.Plan(topic.Params{
			Partitions:  rapid.Int32Range(0, 100).Draw(r, "partitions"),
			Replication: rapid.Int16Range(0, 5).Draw(r, "replication"),
			Retention:   time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(r, "retention")),
			MaxBytes:    rapid.IntRange(0, 1<<30).Draw(r, "bytes"),
		})
		if err != nil {
			r.Fatal(err)
		}
		for _, tp := range plan {
			if tp.Config["cleanup.policy"] != "delete" || tp.Config["retention.bytes"] != "-1" {
				r.Fatalf("%s may lose a record before its time: %v", tp.Name, tp.Config)
			}
			if isr, err := strconv.Atoi(tp.Config["min.insync.replicas"]); err != nil || isr > int(tp.Replication) || (tp.Replication >= 3) != (isr == 2) {
				r.Fatalf("%s: min.insync.replicas %d at replication %d", tp.Name, isr, tp.Replication)
			}
		}
	})
}

func TestTheTopicsOfAPlanDoNotShareSettings(t *testing.T) {
	plan, err := topic.Plan(topic.Params{})
	if err != nil {
		t.Fatal(err)
	}
	plan[0].Config["retention.ms"] = "1"
	if slices.ContainsFunc(plan[1:], func(tp topic.Topic) bool { return tp.Config["retention.ms"] == "1" }) {
		t.Error("a change of one topic's settings reached another's")
	}
}
