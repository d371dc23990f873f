package redrive

import "time"

// meterSpan is the time over which a job's rate is taken.
const meterSpan = 10

// meter counts letters by second over the latest meterSpan seconds. Its clock
// is that of the entries it counts, so that every worker shows the same rate.
type meter struct {
	counts [meterSpan]int
	last   int64 // second of the newest entry
	first  int64 // second of the oldest letter since the job last stood still
}

// tick moves the meter to the time of an entry.
func (m *meter) tick(at time.Time) {
	now := at.Unix()
	for s := max(m.last+1, now-meterSpan+1); s <= now; s++ {
		m.counts[s%meterSpan] = 0
	}
	m.last = max(m.last, now)
}

// count adds one letter.
func (m *meter) count(at time.Time) {
	m.tick(at)
	if m.rate() == 0 {
		m.first = m.last
	}
	m.counts[m.last%meterSpan]++
}

// rate is in letters a second. The present second is not over, so it does not
// count.
func (m *meter) rate() float64 {
	sum := 0
	for _, n := range m.counts {
		sum += n
	}
	sum -= m.counts[m.last%meterSpan]
	span := min(meterSpan-1, m.last-m.first)
	if span <= 0 {
		return 0
	}
	return float64(sum) / float64(span)
}
