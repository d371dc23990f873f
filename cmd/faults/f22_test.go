//go:build faults

package faults_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/cmd/system/topiclog"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/redrive"
)

const (
	f22Letters = 10_000
	f22Rate    = 200.0
	f22Secret  = "the secret of the test of redrives"
)

// TestF22 redrives 10,000 dead letters at 200 a second, cancels in the middle,
// starts again and kills the worker that runs the second job.
func TestF22(t *testing.T) {
	began := time.Now()
	r := openRig(t, rigParams{System: system.Params{
		Workers: 3, Env: []string{"PENSTOCK_ID_SECRET=" + f22Secret},
		Simulate: []string{"--base", "5ms", "--item", "1ms", "--max", "32"},
	}})
	ids := r.bury(t, f22Letters)
	first := r.operators(t)
	awaitLetters(t, first, f22Letters)

	cancelled := redriveAll(t, first[0])
	one := pace(t, first[0], cancelled.ID, func(j redrive.Job) bool { return j.Redriven >= f22Letters*2/5 })
	cancelled = orderJob(t, first[1], cancelled.ID, "cancel", redrive.JobCancelled)

	second := redriveAll(t, first[0])
	two := pace(t, first[0], second.ID, func(j redrive.Job) bool { return j.Redriven >= f22Letters*3/10 })
	owner, others := r.runner(t, first)
	must(t, r.Workers[owner].Kill9())
	killed := time.Now()
	held := others[0].job(t, second.ID).Redriven
	takeover, _ := eventually(t, time.Minute, func() bool { return others[0].job(t, second.ID).Redriven > held+2*64 })
	three := pace(t, others[0], second.ID, func(j redrive.Job) bool { return j.State.Ended() })
	second = others[0].job(t, second.ID)
	t.Logf("killed worker %d, redriving went on after %s, the second job took %s more", owner+1, takeover, time.Since(killed))

	broken := r.redrivenOnce(t, ids)
	if cancelled.Skipped+second.Skipped != 0 || cancelled.Redriven+second.Redriven != len(ids) || second.State != redrive.JobCompleted {
		broken = append(broken, fmt.Sprintf("I1: the jobs count %d+%d redriven and %d+%d skipped of %d, the second is %s",
			cancelled.Redriven, second.Redriven, cancelled.Skipped, second.Skipped, len(ids), second.State))
	}
	rates := []float64{one, two, three}
	report.Row(t, report.Result{
		Fault: "F22", What: "redrive of 10,000 at 200/s: cancelled in the middle, started again, its worker killed", Took: time.Since(began),
		Target: "each redriven exactly once, visibly; 0 skipped; rate within 10 %",
		Measured: fmt.Sprintf("%d then %d redriven, %d skipped; %.0f/s until cancelled, %.0f/s until the kill, %.0f/s after it; away for %.1f s",
			cancelled.Redriven, second.Redriven, cancelled.Skipped+second.Skipped, one, two, three, takeover.Seconds()),
		OK:     !slices.ContainsFunc(rates, func(got float64) bool { return got < 0.9*f22Rate || got > 1.1*f22Rate }),
		Broken: broken,
	})
}

// bury writes dead letters and their terminals as a worker does, and returns
// their tasks, whose work would succeed now.
func (r *rig) bury(t *testing.T, n int) []task.ID {
	t.Helper()
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: r.Kafka.Addrs, ClientID: "gravedigger"},
		slog.New(slog.DiscardHandler), kafkaclient.ProducerOpts(64<<20)...)
	must(t, err)
	t.Cleanup(cl.Close)
	minter, err := task.NewMinter(task.Secret{Key: []byte(f22Secret)})
	must(t, err)
	pub := tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: tasktopic.DefaultConfig().Partitions})
	ids := make([]task.ID, n)
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(256)
	for i := range ids {
		ids[i] = minter.New("dev", time.Now())
		g.Go(func() error { return buryOne(ctx, pub, ids[i], i) })
	}
	must(t, g.Wait())
	return ids
}

func buryOne(ctx context.Context, pub *tasktopic.Publisher, id task.ID, n int) error {
	now, generation := time.Now().UTC(), uint8(0)
	tk := &task.Task{
		SchemaVersion: task.SchemaVersion, ID: id, Kind: task.Completion, Source: task.SourceAPI, Tenant: "dev", Model: "sim-chat",
		Class: task.Standard, Payload: task.Payload{Text: fmt.Sprint("letter ", n)}, Params: task.Params{"max_tokens": json.RawMessage("4")},
		Timestamp: now, Deadline: now.Add(time.Hour),
	}
	rec, err := wire.EncodeTask(tk, task.Progress{Attempts: 5}, "")
	if err != nil {
		return err
	}
	if _, err := pub.DeadLetter(ctx, rec, deadletter.Letter{
		TaskID: id, Tenant: tk.Tenant, Model: tk.Model, Disposition: deadletter.Exhausted, Code: fault.Unavailable,
		Message: "unavailable: the backend answered 503", Attempts: 5, DeadAt: now,
		Origin: deadletter.Origin{Topic: topic.Tasks("default", task.Standard), Offset: int64(n), Timestamp: now},
	}); err != nil {
		return err
	}
	_, err = pub.Terminal(ctx, &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: id, Status: task.Dead, Generation: &generation, Tenant: tk.Tenant, EndedAt: now,
	})
	return err
}

// operatorClient asks one worker's operator API.
type operatorClient struct{ *client.Client }

func (r *rig) operators(t *testing.T) []operatorClient {
	t.Helper()
	var out []operatorClient
	for _, w := range r.Workers {
		cl, err := client.New(client.Config{API: r.Admin(w), Operator: "F22"})
		must(t, err)
		t.Cleanup(cl.Close)
		out = append(out, operatorClient{cl})
	}
	return out
}

func (o operatorClient) job(t *testing.T, id string) redrive.Job {
	t.Helper()
	j, err := o.RedriveJob(t.Context(), id)
	must(t, err)
	return j
}

func awaitLetters(t *testing.T, all []operatorClient, n int) {
	t.Helper()
	for _, o := range all {
		if _, ok := eventually(t, time.Minute, func() bool {
			l, err := o.DeadLetters(t.Context(), 1)
			return err == nil && l.Complete && l.Total == n
		}); !ok {
			t.Fatalf("not every worker has the %d letters", n)
		}
	}
}

func redriveAll(t *testing.T, o operatorClient) redrive.Job {
	t.Helper()
	j, err := o.Redrive(t.Context(), redrive.Request{Filter: &redrive.Filter{}, Rate: f22Rate, Note: t.Name()})
	must(t, err)
	return j
}

// pace follows a job until a condition holds and returns its rate from when
// the canary was over and the rate had risen.
func pace(t *testing.T, o operatorClient, id string, until func(redrive.Job) bool) float64 {
	t.Helper()
	const rise = 8 * time.Second
	var moving, from, to time.Time
	var first, last int
	if _, ok := eventually(t, 3*time.Minute, func() bool {
		j, now := o.job(t, id), time.Now()
		switch {
		case j.Canary == redrive.CanaryPassed && moving.IsZero():
			moving = now
		case !moving.IsZero() && from.IsZero() && now.Sub(moving) > rise:
			from, first = now, j.Redriven
		}
		if j.Remaining > 0 {
			to, last = now, j.Redriven
		}
		return until(j)
	}); !ok {
		t.Fatalf("job does not go on: %+v", o.job(t, id))
	}
	return float64(last-first) / to.Sub(from).Seconds()
}

func orderJob(t *testing.T, o operatorClient, id, wish string, end redrive.JobState) (j redrive.Job) {
	t.Helper()
	_, err := client.Operate[redrive.Job](t.Context(), o.Client, "POST", "/admin/v1/redrives/"+id+"/"+wish, nil, nil)
	must(t, err)
	if _, ok := eventually(t, time.Minute, func() bool { j = o.job(t, id); return j.State == end }); !ok {
		t.Fatalf("job after %s: %+v", wish, j)
	}
	return j
}

// runner finds the worker that redrives now by its counter, and the others.
func (r *rig) runner(t *testing.T, all []operatorClient) (owner int, others []operatorClient) {
	t.Helper()
	count := func() []float64 {
		var out []float64
		for i, o := range all {
			m, err := o.Metrics(t.Context(), r.Admin(r.Workers[i]))
			must(t, err)
			out = append(out, m.Sum("penstock_worker_redrive_letters_total", `outcome="redriven"`))
		}
		return out
	}
	before := count()
	pause(t, time.Second)
	grown := count()
	for i := range grown {
		grown[i] -= before[i]
	}
	owner = slices.Index(grown, slices.MaxFunc(grown, cmp.Compare[float64]))
	return owner, slices.Delete(slices.Clone(all), owner, owner+1)
}

// redrivenOnce says what is wrong with the story that Kafka and the polls tell
// of the tasks: each must be dead, reopened and succeeded, once.
func (r *rig) redrivenOnce(t *testing.T, ids []task.ID) (broken []string) {
	t.Helper()
	if _, ok := r.drained(t, ids, 2*time.Minute); !ok {
		broken = append(broken, "I1: redriven tasks have no terminal")
	}
	log, err := topiclog.Outcomes(t.Context(), r.Kafka.Addrs)
	must(t, err)
	stories := map[string]int{}
	for _, id := range ids {
		var story []string
		for _, w := range log[id].Wins {
			story = append(story, string(w.Status))
		}
		stories[strings.Join(story, " ")]++
	}
	if len(stories) != 1 || stories["dead reopened succeeded"] != len(ids) {
		broken = append(broken, fmt.Sprintf("I2: the log tells %v", stories))
	}
	records, err := topiclog.ReadAll(t.Context(), r.Kafka.Addrs, topic.Tasks("default", task.Standard))
	must(t, err)
	t.Logf("%d records were published for %d redrives", len(records), len(ids))
	for i := 0; i < len(ids); i += 50 {
		got, err := r.Client().Task(t.Context(), ids[i], 0)
		if err != nil || got.Status != task.Succeeded || got.Generation != 1 {
			broken = append(broken, fmt.Sprintf("I3: a poll of %s says %s in generation %d, %v", ids[i], got.Status, got.Generation, err))
		}
	}
	return broken
}
