package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// Batch is what one Poll brought, each topic's partition in order.
type Batch struct {
	Letters []tasktopic.Read // of penstock.dead-letters
	Control []tasktopic.Read // of penstock.control
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
	tail *tasktopic.Replay // of both topics
	ask  *kgo.Client       // single fetches: on the tail's connection they would queue behind its long poll
	adm  *kadm.Client
}

// NewKafkaSource returns a source with clients of its own. It does no I/O.
// The caller closes it after Run returned.
func NewKafkaSource(c kafkaclient.Config, log *slog.Logger) (*KafkaSource, error) {
	tail, err := tasktopic.NewReplay(c, log, topic.DeadLetters, topic.Control)
	if err != nil {
		return nil, err
	}
	ask, err := kafkaclient.New(c, log)
	if err != nil {
		tail.Close()
		return nil, err
	}
	return &KafkaSource{tail: tail, ask: ask, adm: kadm.NewClient(ask)}, nil
}

// Close closes the clients.
func (s *KafkaSource) Close() {
	s.tail.Close()
	s.ask.Close()
}

// Poll implements Source.
func (s *KafkaSource) Poll(ctx context.Context) (Batch, error) {
	records, caughtUp, err := s.tail.Poll(ctx)
	if err != nil {
		return Batch{}, err
	}
	b := Batch{CaughtUp: caughtUp}
	for _, r := range records {
		if r.Topic == topic.Control {
			b.Control = append(b.Control, r)
		} else {
			b.Letters = append(b.Letters, r)
		}
	}
	return b, nil
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
