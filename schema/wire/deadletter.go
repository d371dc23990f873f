package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Headers of a dead letter. The record's own headers stay before them.
const (
	HeaderDLTask        = "penstock_dlt_task"
	HeaderDLTenant      = "penstock_dlt_tenant"
	HeaderDLModel       = "penstock_dlt_model"
	HeaderDLDisposition = "penstock_dlt_disposition"
	HeaderDLCode        = "penstock_dlt_code"
	HeaderDLMessage     = "penstock_dlt_message"
	HeaderDLAttempts    = "penstock_dlt_attempts"
	HeaderDLHistory     = "penstock_dlt_history"
	HeaderDLTopic       = "penstock_dlt_original_topic"
	HeaderDLPartition   = "penstock_dlt_original_partition"
	HeaderDLOffset      = "penstock_dlt_original_offset"
	HeaderDLTimestamp   = "penstock_dlt_original_timestamp"
	HeaderDLGroup       = "penstock_dlt_original_group"
	HeaderDLGeneration  = "penstock_dlt_generation"
	HeaderDLFirst       = "penstock_dlt_first_failure"
	HeaderDLAt          = "penstock_dlt_at"
	HeaderDLSHA256      = "penstock_dlt_payload_sha256"
	HeaderDLJob         = "penstock_dlt_redrive_job"
	HeaderDLBuild       = "penstock_dlt_build"

	// The names Spring Kafka's dead-letter publisher uses, so that tools which
	// know those find their way: numbers are big-endian bytes there.
	headerSpringTopic     = "kafka_dlt-original-topic"
	headerSpringPartition = "kafka_dlt-original-partition"
	headerSpringOffset    = "kafka_dlt-original-offset"
	headerSpringTimestamp = "kafka_dlt-original-timestamp"
	headerSpringGroup     = "kafka_dlt-original-consumer-group"
	headerSpringMessage   = "kafka_dlt-exception-message"
)

// EncodeDeadLetter adds a letter's lineage to the record it is about. Key and
// value are not touched.
func EncodeDeadLetter(original Record, l deadletter.Letter) (Record, error) {
	h := make(headerList, 0, len(original.Headers)+24)
	for _, old := range original.Headers {
		if !isLineage(old.Key) { // of an earlier generation
			h = append(h, old)
		}
	}
	h.add(HeaderDLTask, string(l.TaskID))
	h.add(HeaderDLTenant, l.Tenant)
	h.add(HeaderDLModel, l.Model)
	h.add(HeaderDLDisposition, string(l.Disposition))
	h.add(HeaderDLCode, string(l.Code))
	h.add(HeaderDLMessage, clip(l.Message, deadletter.MaxMessage))
	h.add(HeaderDLAttempts, strconv.Itoa(l.Attempts))
	if len(l.History) > 0 {
		history, err := marshal(l.History)
		if err != nil {
			return Record{}, fmt.Errorf("encode dead letter: %w", err)
		}
		h.add(HeaderDLHistory, string(history))
	}
	h.add(HeaderDLTopic, l.Origin.Topic)
	h.add(HeaderDLPartition, strconv.Itoa(int(l.Origin.Partition)))
	h.add(HeaderDLOffset, strconv.FormatInt(l.Origin.Offset, 10))
	h.add(HeaderDLTimestamp, stamp(l.Origin.Timestamp))
	h.add(HeaderDLGroup, l.Origin.Group)
	h.add(HeaderDLGeneration, strconv.Itoa(int(l.Generation)))
	h.add(HeaderDLFirst, stamp(l.FirstFailure))
	h.add(HeaderDLAt, stamp(l.DeadAt))
	h.add(HeaderDLSHA256, l.SHA256)
	h.add(HeaderDLJob, l.RedriveJob)
	h.add(HeaderDLBuild, l.Build)
	h = append(h, springAliases(l)...)
	return Record{Key: original.Key, Value: original.Value, Headers: h}, nil
}

func springAliases(l deadletter.Letter) []Header {
	return []Header{
		{headerSpringTopic, []byte(l.Origin.Topic)},
		{headerSpringPartition, binary.BigEndian.AppendUint32(nil, uint32(l.Origin.Partition))},
		{headerSpringOffset, binary.BigEndian.AppendUint64(nil, uint64(l.Origin.Offset))},
		{headerSpringTimestamp, binary.BigEndian.AppendUint64(nil, uint64(l.Origin.Timestamp.UnixMilli()))},
		{headerSpringGroup, []byte(l.Origin.Group)},
		{headerSpringMessage, []byte(clip(l.Message, deadletter.MaxMessage))},
	}
}

// DecodeDeadLetter reads a letter's lineage from the headers of a record of
// `penstock.dead-letters`.
func DecodeDeadLetter(r Record) (deadletter.Letter, error) {
	get := func(name string) string { v, _ := r.Get(name); return v }
	d := headerReader{r: r}
	l := deadletter.Letter{
		TaskID:      task.ID(get(HeaderDLTask)),
		Tenant:      get(HeaderDLTenant),
		Model:       get(HeaderDLModel),
		Disposition: deadletter.Disposition(get(HeaderDLDisposition)),
		Code:        fault.Code(get(HeaderDLCode)),
		Message:     get(HeaderDLMessage),
		Attempts:    int(d.number(HeaderDLAttempts, 1<<20)),
		Origin: deadletter.Origin{
			Topic:     get(HeaderDLTopic),
			Partition: int32(d.number(HeaderDLPartition, 1<<31-1)),
			Offset:    d.number(HeaderDLOffset, 1<<62),
			Timestamp: d.time(HeaderDLTimestamp),
			Group:     get(HeaderDLGroup),
		},
		Generation:   uint8(d.number(HeaderDLGeneration, 1<<8-1)),
		FirstFailure: d.time(HeaderDLFirst),
		DeadAt:       d.time(HeaderDLAt),
		SHA256:       get(HeaderDLSHA256),
		RedriveJob:   get(HeaderDLJob),
		Build:        get(HeaderDLBuild),
	}
	if d.err == nil && l.Disposition == "" {
		d.err = fmt.Errorf("%w: header %s is missing", ErrRecord, HeaderDLDisposition)
	}
	if raw := get(HeaderDLHistory); raw != "" && d.err == nil {
		if err := json.Unmarshal([]byte(raw), &l.History); err != nil {
			d.err = fmt.Errorf("%w: header %s: %w", ErrRecord, HeaderDLHistory, err)
		}
	}
	return l, d.err
}

// OriginalHeaders returns the headers a dead letter had before it died.
func OriginalHeaders(r Record) []Header {
	var out []Header
	for _, h := range r.Headers {
		if !isLineage(h.Key) {
			out = append(out, h)
		}
	}
	return out
}

func isLineage(key string) bool {
	const ours, theirs = "penstock_dlt_", "kafka_dlt-"
	return len(key) > len(ours) && key[:len(ours)] == ours || len(key) > len(theirs) && key[:len(theirs)] == theirs
}

// clip cuts s to at most n bytes without splitting a rune.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
