package proxy

import "time"

// Fault is what a link does to the bytes that pass. The zero value lets all of
// them pass at once. Each kind works in both directions, and kinds combine.
type Fault struct {
	// Latency delays each piece, plus or minus up to Jitter. Order is kept, and
	// pieces travel behind each other: a delay costs time, not throughput.
	Latency, Jitter time.Duration
	// Bandwidth is in bytes per second, of each connection and direction. Zero:
	// no limit.
	Bandwidth int
	// BlackHole accepts connections and swallows what is sent. What it swallowed
	// is gone: a connection that lost bytes is reset when the fault is taken
	// away, because its peers no longer agree on what was said.
	BlackHole bool
	// Hold keeps what is sent and lets it go when the fault is taken away, as
	// TCP does across a network that came back: requests arrive late, perhaps
	// after their sender has given up.
	Hold bool
	// SlowClose tells one side that much later that the other has closed.
	SlowClose time.Duration
	// Cut ends every connection and refuses new ones.
	Cut bool
}

// maxPiece bounds what is read at once, and so what a slow link may send in one
// go.
const maxPiece = 16 << 10

// piece is how many bytes may be sent at once: under a bandwidth a twentieth of
// a second's worth, so that bytes drip rather than gush.
func (f Fault) piece() int {
	if f.Bandwidth <= 0 {
		return maxPiece
	}
	return min(maxPiece, max(1, f.Bandwidth/20))
}

// cost is how long n bytes occupy the link.
func (f Fault) cost(n int) time.Duration {
	if f.Bandwidth <= 0 {
		return 0
	}
	return time.Duration(n) * time.Second / time.Duration(f.Bandwidth)
}
