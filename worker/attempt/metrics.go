package attempt

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/schema/fault"
)

// metrics of a worker's attempts, over all pools.
type metrics struct {
	attempts     *prometheus.CounterVec
	duration     prometheus.Histogram
	firstToken   prometheus.Histogram
	bisects      prometheus.Counter
	checks       *prometheus.CounterVec
	claims       *prometheus.CounterVec
	lost         prometheus.Counter
	beats        *prometheus.CounterVec
	streamsEnded *prometheus.CounterVec
	losses       *prometheus.CounterVec
}

// Reasons for which a stream ends before its try.
const (
	endFenced   = "fenced"   // another attempt writes, or the task has ended
	endVanished = "vanished" // the store lost it again and again
	endUnproven = "unproven" // the store lost it, and the task may be another's
	endOverflow = "overflow" // the store was away for too much text
)

// Outcomes of a stream that the store lost.
const (
	lossReplayed = "replayed" // everything was written again
	lossGapped   = "gapped"   // what was remembered was written again, behind a gap
	lossUnproven = "unproven" // nothing was
)

// Outcomes of the attempts counter: success, or what follows from a failure.
func (n Next) String() string {
	return [...]string{"succeeded", "failed", "dead", "expired", "cancelled", "retry", "requeue"}[n]
}

func newMetrics(reg prometheus.Registerer) *metrics {
	seconds := []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_attempts_total", Help: "Tries that ended, by what follows and the fault code (none on success).",
		}, []string{"outcome", "reason"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_worker_attempt_duration_seconds", Help: "Time from a try's start to its outcome.", Buckets: seconds,
		}),
		firstToken: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_worker_first_token_seconds", Help: "Time from a streamed call's start to its first token.", Buckets: seconds,
		}),
		bisects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_worker_batch_bisections_total", Help: "Failed batches that were split to find the culprit.",
		}),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_prior_checks_total", Help: "Checks for a terminal before dispatch: ok, moot (a task had ended) or skipped (store slow or away).",
		}, []string{"outcome"}),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_claims_total", Help: "Claims of tries: ok; fenced or error (the try runs without a token stream); held (another worker runs the task) or barred (its losses must be published first), and it does not run now.",
		}, []string{"outcome"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_worker_lost_claims_total", Help: "Claims of other workers that were found without an outcome.",
		}),
		beats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_claim_writes_total", Help: "Round trips that kept claims alive (beat) or let go of them (release), by outcome.",
		}, []string{"what", "outcome"}),
		streamsEnded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_streams_ended_total", Help: "Token streams that ended before their try did.",
		}, []string{"reason"}),
		losses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_stream_losses_total", Help: "Token streams that Redis lost: replayed (all of it is back), gapped (its latest part is) or unproven (not begun again, for the task may be another worker's).",
		}, []string{"outcome"}),
	}
	reg.MustRegister(m.attempts, m.duration, m.firstToken, m.bisects, m.checks, m.claims, m.lost, m.beats, m.streamsEnded, m.losses)
	m.zero()
	return m
}

// zero makes every series appear before it first counts.
func (m *metrics) zero() {
	m.attempts.WithLabelValues(Succeed.String(), "none")
	for _, c := range fault.Codes() {
		m.attempts.WithLabelValues(Decide(1, fault.New(c, "")).Next.String(), string(c))
		m.attempts.WithLabelValues(Decide(MaxAttempts, fault.New(c, "")).Next.String(), string(c))
	}
	for _, o := range []string{"ok", "moot", "skipped"} {
		m.checks.WithLabelValues(o)
	}
	for _, o := range []string{"ok", "fenced", "held", "barred", "error"} {
		m.claims.WithLabelValues(o)
	}
	for _, what := range []string{"beat", "release"} {
		m.beats.WithLabelValues(what, "ok")
		m.beats.WithLabelValues(what, "error")
	}
	for _, o := range []string{endFenced, endVanished, endUnproven, endOverflow} {
		m.streamsEnded.WithLabelValues(o)
	}
	for _, o := range []string{lossReplayed, lossGapped, lossUnproven} {
		m.losses.WithLabelValues(o)
	}
}

func (m *metrics) ended(v Verdict, r Result) {
	reason := string(v.Code)
	if reason == "" {
		reason = "none"
	}
	m.attempts.WithLabelValues(v.Next.String(), reason).Inc()
	m.duration.Observe(r.Ended.Sub(r.Started).Seconds())
}
