package blob

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Operations and outcomes: closed sets, registered at zero.
const (
	opPut, opOpen, opRenew, opRemove, opSweep = "put", "open", "renew", "remove", "sweep"

	outcomeOK, outcomeFailed = "ok", "failed"
)

// reasons are the outcomes of the errors that callers branch on.
func reasons() map[string]error {
	return map[string]error{"not_found": ErrNotFound, "too_large": ErrTooLarge, "unavailable": ErrUnavailable, "corrupt": ErrCorrupt}
}

type metrics struct {
	operations *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	blobsSwept prometheus.Counter
	lastSweep  prometheus.Gauge
}

func newMetrics(p Params) *metrics {
	ns := "penstock_" + p.Service + "_"
	m := &metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "blob_operations_total", Help: "What was asked of the blob store, by how it ended.",
		}, []string{"operation", "outcome"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "blob_bytes_total", Help: "Content that was put, opened, renewed, removed or swept.",
		}, []string{"operation"}),
		blobsSwept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: ns + "blobs_swept_total", Help: "Blobs deleted because of their age.",
		}),
		lastSweep: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: ns + "blob_last_sweep_timestamp_seconds", Help: "When a sweep last ended without an error; 0 if none has here.",
		}),
	}
	for _, op := range []string{opPut, opOpen, opRenew, opRemove, opSweep} {
		m.bytes.WithLabelValues(op)
		m.operations.WithLabelValues(op, outcomeOK)
		m.operations.WithLabelValues(op, outcomeFailed)
		for reason := range reasons() {
			m.operations.WithLabelValues(op, reason)
		}
	}
	p.Registry.MustRegister(m.operations, m.bytes, m.blobsSwept, m.lastSweep)
	return m
}

func (m *metrics) did(op string, bytes int64, err error) {
	m.operations.WithLabelValues(op, outcomeOf(err)).Inc()
	if err == nil {
		m.bytes.WithLabelValues(op).Add(float64(bytes))
	}
}

func (m *metrics) swept(s Swept, err error) {
	m.operations.WithLabelValues(opSweep, outcomeOf(err)).Inc()
	m.bytes.WithLabelValues(opSweep).Add(float64(s.Bytes))
	m.blobsSwept.Add(float64(s.Blobs))
	if err == nil {
		m.lastSweep.SetToCurrentTime()
	}
}

func outcomeOf(err error) string {
	if err == nil {
		return outcomeOK
	}
	for name, reason := range reasons() {
		if errors.Is(err, reason) {
			return name
		}
	}
	return outcomeFailed
}
