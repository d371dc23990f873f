//go:build faults

package faults_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

const (
	f20Readers = 2_000
	f20Stalled = 500
	f20Each    = 100 // readers of one task
	f20Secret  = "the secret of the test of readers"
	f20Pace    = 250 * time.Millisecond // between the events of a task
	f20Phase   = 10 * time.Second
	f20Cut     = 10 * time.Second
)

// TestF20 has 500 of 2,000 readers stop reading, while as much is written to
// them as fits no connection's buffers, and later go on where they were.
func TestF20(t *testing.T) {
	began := time.Now()
	r := openRig(t, rigParams{Direct: true, System: system.Params{Env: []string{"PENSTOCK_ID_SECRET=" + f20Secret}}})
	results := r.Results[0]
	s := r.openStage(t)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	for _, rd := range s.readers {
		readers.Go(func() { rd.run(ctx) })
	}
	until(t, time.Minute, "every reader to have an event", func() bool { s.write(t, 256); return s.behind(0) == 0 })

	calm := s.perform(t, f20Phase)
	memory, err := system.Resident(results.PID())
	must(t, err)
	close(s.stall)
	stopped := time.Now()
	s.flood(t)
	cut := make(chan time.Duration, 1)
	peak := memory
	readers.Go(func() {
		for ctx.Err() == nil {
			if now, err := system.Resident(results.PID()); err == nil {
				peak = max(peak, now)
			}
			if r.scrape(t, results, "penstock_resultsvc_streams_total", "cut") >= f20Stalled {
				cut <- time.Since(stopped)
				return
			}
			rest(ctx, 250*time.Millisecond)
		}
	})
	wronged := s.perform(t, f20Phase)
	took := time.Duration(0)
	select {
	case took = <-cut:
	case <-time.After(time.Minute):
		t.Error("not every reader that stopped was cut")
	}
	close(s.resume)
	s.perform(t, 2*time.Second)
	s.end(t)
	readers.Wait()

	gaps, short, resumed := s.judge()
	ratio := float64(quantile(wronged, 0.99)) / float64(max(quantile(calm, 0.99), time.Millisecond))
	row := report.Result{
		Fault: "F20", What: "500 of 2,000 SSE readers stop reading, and resume later",
		Target: "healthy p99 <= 1.2x; cut <= 10 s; RSS + <= 64 MiB; resumed by Last-Event-ID without a gap",
		Measured: fmt.Sprintf("healthy p99 %d ms, before %d ms (%.2fx); all cut %.1f s after they stopped; RSS +%d MiB; %d resumed, %d gaps",
			quantile(wronged, 0.99).Milliseconds(), quantile(calm, 0.99).Milliseconds(), ratio, took.Seconds(), (peak-memory)>>20, resumed, gaps),
		OK:   ratio <= 1.2 && took > 0 && took <= f20Cut && peak-memory <= 64<<20 && resumed == f20Stalled,
		Took: time.Since(began),
	}
	if gaps > 0 || short > 0 {
		row.Broken = append(row.Broken, fmt.Sprintf("I4: %d events are missing, %d readers did not reach the end", gaps, short))
	}
	report.Row(t, row)
}

// stage is some tasks, of which each is written by the test and watched by
// many.
type stage struct {
	log     *eventlog.Log
	pub     *tasktopic.Publisher
	fence   event.Fence
	tasks   []task.ID
	seq     uint64
	readers []*sseReader
	stall   chan struct{} // closed: those who stall stop reading
	resume  chan struct{} // closed: they go on
}

func (r *rig) openStage(t *testing.T) *stage {
	t.Helper()
	options, err := redis.ParseURL(r.Redis.URL)
	must(t, err)
	rdb := redis.NewClient(options)
	closing(t, rdb.Close)
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: r.Kafka.Addrs, ClientID: "stage"}, slog.New(slog.DiscardHandler), kafkaclient.ProducerOpts(1<<20)...)
	must(t, err)
	t.Cleanup(cl.Close)
	partitions := tasktopic.DefaultConfig().Partitions
	s := &stage{
		log: eventlog.New(rdb, eventlog.Params{Partitions: partitions}), stall: make(chan struct{}), resume: make(chan struct{}),
		pub: tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: partitions}),
	}
	s.fence, err = event.NewFence(0, 0, 1, 0)
	must(t, err)
	minter, err := task.NewMinter(task.Secret{Key: []byte(f20Secret)})
	must(t, err)
	addr := strings.TrimPrefix(r.Results[0].URL, "http://")
	for n := range f20Readers / f20Each {
		id := minter.New("dev", time.Now())
		must(t, s.log.Claim(t.Context(), eventlog.Claim{ID: id, Fence: s.fence, Attempt: 1}))
		s.tasks = append(s.tasks, id)
		for range f20Each {
			s.readers = append(s.readers, &sseReader{addr: addr, id: id, s: s, stalls: n < f20Stalled/f20Each})
		}
	}
	return s
}

// write adds an event of some size to each task, all of them at once.
func (s *stage) write(t *testing.T, size int) {
	t.Helper()
	s.seq++
	s.append(t, s.tasks, s.seq, size)
}

func (s *stage) append(t *testing.T, tasks []task.ID, seq uint64, size int) {
	t.Helper()
	now := time.Now()
	text := strconv.FormatInt(now.UnixNano(), 10) + strings.Repeat(" ", size)
	batch := make([]eventlog.Append, len(tasks))
	for i, id := range tasks {
		batch[i] = eventlog.Append{ID: id, Events: []event.Event{{ID: event.ID{Fence: s.fence, Seq: seq}, Type: event.Delta, TaskID: id, At: now, Text: text}}}
	}
	must(t, errors.Join(s.log.Append(t.Context(), batch)...))
}

// flood writes more than a connection's buffers hold, to those who stall only;
// the others get as many small events.
func (s *stage) flood(t *testing.T) {
	t.Helper()
	const events, size = 64, 16 << 10
	stalled := s.tasks[:f20Stalled/f20Each]
	for range events {
		s.seq++
		s.append(t, stalled, s.seq, size)
		s.append(t, s.tasks[len(stalled):], s.seq, 256)
		pause(t, f20Pace/10)
	}
}

// perform writes for a time, and returns how late the healthy readers had it.
func (s *stage) perform(t *testing.T, d time.Duration) (late []time.Duration) {
	t.Helper()
	for _, r := range s.readers {
		r.takeLate()
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		s.write(t, 256)
		pause(t, f20Pace)
	}
	for _, r := range s.readers {
		if !r.stalls {
			late = append(late, r.takeLate()...)
		}
	}
	return late
}

// end ends every task, by Kafka.
func (s *stage) end(t *testing.T) {
	t.Helper()
	generation := uint8(0)
	for _, id := range s.tasks {
		_, err := s.pub.Terminal(t.Context(), &terminal.Terminal{
			SchemaVersion: task.SchemaVersion, TaskID: id, Status: task.Succeeded, Generation: &generation, Tenant: "dev",
			Fence: s.fence.String(), Output: &task.Output{Text: "all of it"}, CreatedAt: time.Now(), EndedAt: time.Now(),
		})
		must(t, err)
	}
}

// behind is how many readers have not got further than a sequence.
func (s *stage) behind(seq uint64) (n int) {
	for _, r := range s.readers {
		if r.at() <= seq {
			n++
		}
	}
	return n
}

// judge sums up what the readers lack.
func (s *stage) judge() (gaps, short, resumed int) {
	for _, r := range s.readers {
		gaps += r.gaps
		if !r.ended || r.seq != s.seq {
			short++
		}
		if r.stalls && r.opened > 1 {
			resumed++
		}
	}
	return gaps, short, resumed
}

// sseReader reads one task's events to the end, over as many connections as it
// takes.
type sseReader struct {
	s      *stage
	addr   string
	id     task.ID
	stalls bool

	opened, gaps int
	ended        bool
	last         string

	mu   sync.Mutex
	seq  uint64
	late []time.Duration
}

func (r *sseReader) at() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq
}

func (r *sseReader) takeLate() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	late := r.late
	r.late = nil
	return late
}

func (r *sseReader) run(ctx context.Context) {
	for ctx.Err() == nil && !r.ended {
		r.opened++
		_ = r.read(ctx) // whatever ended it, the next goes on after the last event
		rest(ctx, 100*time.Millisecond)
	}
}

func (r *sseReader) read(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr+"/v1/tasks/"+string(r.id)+"/events", nil)
	if err != nil {
		return err
	}
	if r.last != "" {
		req.Header.Set("Last-Event-ID", r.last)
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 4<<10), req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the stream was answered %d", res.StatusCode)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 4<<10), 1<<20)
	return r.frames(ctx, lines)
}

func (r *sseReader) frames(ctx context.Context, lines *bufio.Scanner) error {
	var id, data string
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case name == "id":
			id = value
		case name == "data":
			data = value
		case name == "" && id != "":
			if err := r.take(id, data); err != nil || r.ended {
				return err
			}
			id, data = "", ""
		}
		if r.opened == 1 && r.stalls {
			r.wait(ctx)
		}
	}
	return lines.Err()
}

// wait stands still from the moment in which those who stall stop.
func (r *sseReader) wait(ctx context.Context) {
	select {
	case <-r.s.stall:
	default:
		return
	}
	select {
	case <-r.s.resume:
	case <-ctx.Done():
	}
}

// take counts what lies between an event and the last.
func (r *sseReader) take(text, data string) error {
	id, err := event.ParseID(text)
	if err != nil {
		return err
	}
	r.last = text
	if r.ended = id.Fence.Terminal(); r.ended || id.Fence == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if id.Seq > 0 && id.Seq != r.seq+1 {
		r.gaps++
	}
	r.seq = id.Seq
	if _, rest, ok := strings.Cut(data, `"text":"`); ok {
		word, _, _ := strings.Cut(rest, " ")
		if nano, err := strconv.ParseInt(word, 10, 64); err == nil {
			r.late = append(r.late, time.Since(time.Unix(0, nano)))
		}
	}
	return nil
}

// rest waits, or until ctx is done.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
