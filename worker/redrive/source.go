package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// Read is one record with its place and time.
type Read struct {
	Ref    Ref
	Time   time.Time
	Record wire.Record
}

// Batch is what one Poll brought, each topic's partition in order.
type Batch struct {
	Letters []Read // of penstock.dead-letters
	Control []Read // of penstock.control
	// CaughtUp is true once everything that was there at the first Poll has
	// been handed out, and from then on.
	CaughtUp bool
}

// Source reads the topics a Redriver is built on.
type Source interface {
	// Poll waits for records of both topics, all partitions, from the start.
	Poll(ctx context.Context) (Batch, error)
	// Fetch reads one dead letter again. ErrGone: it is not there any more.
	Fetch(ctx context.Context, r Ref) (wire.Record, error)
	// ResultsEnd is the offset after the last record of a partition of
	// penstock.results.
	ResultsEnd(ctx context.Context, partition int32) (int64, error)
}

// ErrGone is returned by Fetch for a record past its retention.
var ErrGone = errors.New("dead letter is past its retention")

var _ Source = (*KafkaSource)(nil)

// KafkaSource reads from Kafka without a consumer group: every worker keeps
// the whole index, and nothing is committed.
type KafkaSource struct {
	tail  *kgo.Client // reads both topics to their end and waits there
	ask   *kgo.Client // single fetches: on the tail's connection they would queue behind its long poll
	adm   *kadm.Client
	ahead map[place]int64 // end at the start, of partitions not read that far yet
	begun bool
}

type place struct {
	topic     string
	partition int32
}

// NewKafkaSource returns a source with clients of its own. It does no I/O.
// The caller closes it after Run returned.
func NewKafkaSource(c kafkaclient.Config, log *slog.Logger) (*KafkaSource, error) {
	tail, err := kafkaclient.New(c, log, kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), topic.DeadLetters, topic.Control)...)
	if err != nil {
		return nil, err
	}
	ask, err := kafkaclient.New(c, log)
	if err != nil {
		tail.Close()
		return nil, err
	}
	return &KafkaSource{tail: tail, ask: ask, adm: kadm.NewClient(ask), ahead: map[place]int64{}}, nil
}

// Close closes the clients.
func (s *KafkaSource) Close() {
	s.tail.Close()
	s.ask.Close()
}

// Poll implements Source.
func (s *KafkaSource) Poll(ctx context.Context) (Batch, error) {
	if !s.begun {
		if err := s.begin(ctx); err != nil {
			return Batch{}, err
		}
		s.begun = true
		if len(s.ahead) == 0 {
			return Batch{CaughtUp: true}, nil
		}
	}
	fetches := s.tail.PollRecords(ctx, 5000)
	if err := ctx.Err(); err != nil {
		return Batch{}, context.Cause(ctx)
	}
	var errs []error
	fetches.EachError(func(t string, p int32, err error) {
		errs = append(errs, fmt.Errorf("read %s/%d: %w", t, p, err))
	})
	var b Batch
	fetches.EachRecord(func(r *kgo.Record) { s.take(&b, r) })
	b.CaughtUp = len(s.ahead) == 0
	if len(b.Letters)+len(b.Control) == 0 && len(errs) > 0 {
		return Batch{}, errors.Join(errs...)
	}
	return b, nil
}

func (s *KafkaSource) take(b *Batch, r *kgo.Record) {
	read := Read{Ref{r.Partition, r.Offset}, r.Timestamp, tasktopic.FromKgo(r)}
	if r.Topic == topic.Control {
		b.Control = append(b.Control, read)
	} else {
		b.Letters = append(b.Letters, read)
	}
	at := place{r.Topic, r.Partition}
	if end, waiting := s.ahead[at]; waiting && r.Offset+1 >= end {
		delete(s.ahead, at)
	}
}

// begin notes where the partitions end now.
func (s *KafkaSource) begin(ctx context.Context) error {
	starts, err := s.adm.ListStartOffsets(ctx, topic.DeadLetters, topic.Control)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("list start offsets: %w", err)
	}
	ends, err := s.adm.ListEndOffsets(ctx, topic.DeadLetters, topic.Control)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("list end offsets: %w", err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok && start.Offset < end.Offset {
			s.ahead[place{end.Topic, end.Partition}] = end.Offset
		}
	})
	return nil
}

// ResultsEnd implements Source.
func (s *KafkaSource) ResultsEnd(ctx context.Context, partition int32) (int64, error) {
	ends, err := s.adm.ListEndOffsets(ctx, topic.Results)
	if err != nil {
		return 0, fmt.Errorf("list end offsets: %w", err)
	}
	end, ok := ends.Lookup(topic.Results, partition)
	if !ok || end.Err != nil {
		return 0, fmt.Errorf("end offset of %s/%d: %w", topic.Results, partition, cmpErr(end.Err, kerr.UnknownTopicOrPartition))
	}
	return end.Offset, nil
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// Fetch implements Source with one fetch request to the partition's leader:
// seeking a consumer for every letter would disturb the tail that Poll reads.
func (s *KafkaSource) Fetch(ctx context.Context, r Ref) (wire.Record, error) {
	req, leader, err := s.fetchRequest(ctx, r)
	if err != nil {
		return wire.Record{}, err
	}
	reply, err := s.ask.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return wire.Record{}, fmt.Errorf("fetch dead letter %s: %w", r, err)
	}
	rec, err := recordAt(reply.(*kmsg.FetchResponse), r)
	if err != nil {
		return wire.Record{}, fmt.Errorf("fetch dead letter %s: %w", r, err)
	}
	return rec, nil
}

func (s *KafkaSource) fetchRequest(ctx context.Context, r Ref) (*kmsg.FetchRequest, int32, error) {
	req, t := kmsg.NewMetadataRequest(), kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic.DeadLetters)
	req.Topics = append(req.Topics, t)
	meta, err := s.ask.RequestCachedMetadata(ctx, &req, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("find leader of dead letter %s: %w", r, err)
	}
	for _, t := range meta.Topics {
		for _, p := range t.Partitions {
			if t.Topic != nil && *t.Topic == topic.DeadLetters && p.Partition == r.Partition && p.Leader >= 0 {
				return newFetch(t.TopicID, r), p.Leader, nil
			}
		}
	}
	return nil, 0, fmt.Errorf("find leader of dead letter %s: %w", r, ErrGone)
}

func newFetch(id [16]byte, r Ref) *kmsg.FetchRequest {
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset = r.Partition, r.Offset
	p.PartitionMaxBytes = 1 // the first batch comes whole, whatever its size
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic.DeadLetters, id
	t.Partitions = append(t.Partitions, p)
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 0, 0, kafkaclient.MaxRecordBytes // what is not there now never will be
	req.SessionEpoch = -1                                                            // no session: one request, one answer
	req.Topics = append(req.Topics, t)
	return req
}

func recordAt(reply *kmsg.FetchResponse, r Ref) (wire.Record, error) {
	if err := kerr.ErrorForCode(reply.ErrorCode); err != nil {
		return wire.Record{}, err
	}
	for _, t := range reply.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if p.Partition != r.Partition {
				continue
			}
			if err := kerr.ErrorForCode(p.ErrorCode); errors.Is(err, kerr.OffsetOutOfRange) {
				return wire.Record{}, ErrGone
			} else if err != nil {
				return wire.Record{}, err
			}
			return pick(p, r)
		}
	}
	return wire.Record{}, ErrGone
}

func pick(p *kmsg.FetchResponseTopicPartition, r Ref) (wire.Record, error) {
	opts := kgo.ProcessFetchPartitionOpts{Offset: r.Offset, Topic: topic.DeadLetters, Partition: r.Partition}
	got, _ := kgo.ProcessFetchPartition(opts, p, kgo.DefaultDecompressor(), nil)
	for _, rec := range got.Records {
		if rec.Offset == r.Offset {
			return tasktopic.FromKgo(rec), nil
		}
	}
	if got.Err != nil {
		return wire.Record{}, got.Err
	}
	return wire.Record{}, ErrGone
}
