package joblog

import "time"

// Seat is who runs one job, as its entries say in the order of the log. The zero
// Seat is free. It belongs to a fold, under that fold's lock.
type Seat struct {
	Owner string // empty: nobody
	Epoch int    // of the latest claim that was granted: the fence of its owner
	beat  time.Time
}

// Claim grants the seat to the first claim with the next epoch, and reports
// whether this is it. Heard is when its author was alive, by the reader's clock.
func (s *Seat) Claim(owner string, epoch int, heard time.Time) bool {
	if epoch != s.Epoch+1 {
		return false
	}
	*s = Seat{owner, epoch, heard}
	return true
}

// Is reports whether an entry comes from the present owner.
func (s *Seat) Is(owner string, epoch int) bool {
	return s.Owner != "" && s.Owner == owner && s.Epoch == epoch
}

// Heard notes a sign of life and reports whether it is the owner's.
func (s *Seat) Heard(owner string, epoch int, at time.Time) bool {
	if !s.Is(owner, epoch) {
		return false
	}
	s.beat = at
	return true
}

// Leave frees the seat; the epoch stays, so that what its last owner still
// writes is told from its next owner's.
func (s *Seat) Leave() { s.Owner = "" }

// Free reports whether nobody sits there, or somebody who was silent for longer
// than the lease.
func (s *Seat) Free(now time.Time, lease time.Duration) bool {
	return s.Owner == "" || now.Sub(s.beat) > lease
}
