package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/cmd/penstock/bench/bare"
	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// bareVenue is the yardstick.
type bareVenue struct {
	*bareChild
	rdb redis.UniversalClient // to the Redis that feeds it
}

func (v bareVenue) pid() int { return v.cmd.Process.Pid }

func (v bareVenue) where(n int) []string { return slices.Repeat([]string{v.url + "/events"}, n) }

func (bareVenue) begin(context.Context) error { return nil }

func (v bareVenue) collect(ctx context.Context) error {
	_, err := order(ctx, http.MethodPost, v.url+"/collect", "")
	return err
}

// own has the yardstick write its own events.
func (v bareVenue) own(ctx context.Context, rate float64, length time.Duration) (sent int, writes Result, err error) {
	q := url.Values{"rate": {fmt.Sprint(rate)}, "for": {length.String()}}
	text, err := order(ctx, http.MethodPost, v.url+"/emit?"+q.Encode(), "")
	if err != nil {
		return 0, writes, err
	}
	sent, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return sent, writes, err
}

// told publishes events to the yardstick, over HTTP: a server of streams whose
// events are made elsewhere has no shorter way.
func (v bareVenue) told(ctx context.Context, rate float64, length time.Duration) (sent int, writes Result, err error) {
	return emit(ctx, rate, length, func() error {
		_, err := order(ctx, http.MethodPost, v.url+"/publish", strconv.FormatInt(time.Now().UnixMicro(), 10))
		return err
	})
}

// fed publishes events on Redis, from where the yardstick takes them.
func (v bareVenue) fed(ctx context.Context, rate float64, length time.Duration) (sent int, writes Result, err error) {
	return emit(ctx, rate, length, func() error {
		if err := v.rdb.Publish(ctx, bare.Channel, time.Now().UnixMicro()).Err(); err != nil {
			return fmt.Errorf("publish event: %w", err)
		}
		return nil
	})
}

// emit writes events at random times.
func emit(ctx context.Context, rate float64, length time.Duration, write func() error) (sent int, writes Result, err error) {
	began, took := time.Now(), newTally()
	for _, due := range Poisson(rate, length, 1) {
		if err := waitUntil(ctx, began.Add(due)); err != nil {
			return sent, writes, err
		}
		from := time.Now()
		if err := write(); err != nil {
			return sent, writes, err
		}
		took.add(time.Since(from), nil)
		sent++
	}
	return sent, merge([]*tally{took}, time.Since(began)), nil
}

// order asks a server to do something and returns its answer.
func order(ctx context.Context, method, at, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, at, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s: %s: %.200s", req.URL.Path, res.Status, text)
	}
	return text, err
}

// ourVenue is the results service, on tasks that nobody runs. Events are written
// to their log as a worker does.
type ourVenue struct {
	results *system.Process
	admin   string // base URL of its profiles
	rdb     redis.UniversalClient
	log     *eventlog.Log
	tasks   []task.ID
	fence   event.Fence
	seqs    []uint64 // of the latest event of each task
}

// newVenue submits the tasks. It must be closed.
func newVenue(ctx context.Context, s *system.System, redisURL string, tasks int) (*ourVenue, error) {
	rdb, err := redisclient.New(redisclient.Config{URL: config.Secret(redisURL), PoolSize: 16})
	if err != nil {
		return nil, err
	}
	v := &ourVenue{results: s.Results[0], admin: s.Admin(s.Results[0]), rdb: rdb, log: eventlog.New(rdb, eventlog.Params{}), seqs: make([]uint64, tasks)}
	for len(v.tasks) < tasks {
		ids, err := submitQueued(ctx, s.Client(), min(api.MaxBatch, tasks-len(v.tasks)))
		if err != nil {
			return nil, errors.Join(err, v.close())
		}
		v.tasks = append(v.tasks, ids...)
	}
	return v, nil
}

func (v *ourVenue) close() error { return v.rdb.Close() }

// submitQueued submits tasks in one call.
func submitQueued(ctx context.Context, c *client.Client, n int) ([]task.ID, error) {
	batch := make([]api.SubmitRequest, n)
	for i := range batch {
		batch[i] = api.SubmitRequest{Model: simulated.ChatModel, Payload: task.Payload{Text: "wait"}, Stream: true}
	}
	res, err := c.SubmitBatch(ctx, batch)
	if err != nil {
		return nil, err
	}
	ids := make([]task.ID, 0, n)
	for _, item := range res.Items {
		if item.Accepted == nil {
			return nil, fmt.Errorf("task %d was refused: %d %+v", item.Index, item.Code, item.Error)
		}
		ids = append(ids, item.Accepted.TaskID)
	}
	return ids, nil
}

func (v *ourVenue) pid() int { return v.results.PID() }

func (v *ourVenue) where(n int) []string {
	urls := make([]string, n)
	for i := range urls {
		urls[i] = v.results.URL + "/v1/tasks/" + string(v.tasks[i]) + "/events"
	}
	return urls
}

func (v *ourVenue) collect(ctx context.Context) error {
	_, err := order(ctx, http.MethodGet, v.admin+"/debug/pprof/heap?gc=1", "") // the profile itself is of no use here
	return err
}

// claimsAtOnce is how many tasks are claimed in one round trip.
const claimsAtOnce = 500

// begin claims every task: from here on its stream says that it runs.
func (v *ourVenue) begin(ctx context.Context) (err error) {
	if v.fence, err = event.NewFence(0, 0, 1, 0); err != nil {
		return err
	}
	for i := 0; i < len(v.tasks); i += claimsAtOnce {
		var claims []eventlog.Claim
		for _, id := range v.tasks[i:min(i+claimsAtOnce, len(v.tasks))] {
			claims = append(claims, eventlog.Claim{ID: id, Fence: v.fence, Attempt: 1, Worker: "bench"})
		}
		for _, grant := range v.log.ClaimAll(ctx, claims) {
			if grant.Err != nil {
				return grant.Err
			}
		}
	}
	return nil
}

func (v *ourVenue) emit(ctx context.Context, rate float64, length time.Duration) (sent int, writes Result, err error) {
	return emit(ctx, rate, length, func() error { return v.write(ctx, rand.IntN(len(v.tasks))) })
}

// write adds a stamp to the stream of one task.
func (v *ourVenue) write(ctx context.Context, i int) error {
	v.seqs[i]++
	now := time.Now()
	return v.log.Append(ctx, []eventlog.Append{{ID: v.tasks[i], Events: []event.Event{{
		ID: event.ID{Fence: v.fence, Seq: v.seqs[i]}, Type: event.Delta, TaskID: v.tasks[i], At: now.UTC(), Text: simulated.Stamp(now),
	}}}})[0]
}
