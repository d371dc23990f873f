package consume

// flow pauses and resumes partitions for the limits and the span. A pause ends
// only when half of what caused it is free again, so that it does not flutter.
// The caller holds the lock.
func (g *Group) flow() {
	switch {
	case g.records >= g.p.MaxRecords || g.bytes >= g.p.MaxBytes:
		g.full = true
	case g.records <= g.p.MaxRecords/2 && g.bytes <= g.p.MaxBytes/2:
		g.full = false
	}
	for _, o := range g.owners {
		g.flowOne(o)
	}
}

func (g *Group) flowOne(o *owner) {
	width := 0
	if o.track != nil {
		width = o.track.Width()
	}
	switch {
	case len(o.backlog) > 0 || width > Span*9/10 || len(o.pending) >= g.p.LaneRecords || o.bytes >= g.p.LaneBytes:
		o.wide = true
	case width <= Span/2 && len(o.pending) <= g.p.LaneRecords/2 && o.bytes <= g.p.LaneBytes/2:
		o.wide = false
	}
	g.pause(o, g.full || o.wide)
}

// pause tells the client, which remembers pauses across assignments, only what
// changes.
func (g *Group) pause(o *owner, on bool) {
	if o.paused == on {
		return
	}
	o.paused = on
	at := map[string][]int32{o.at.topic: {o.at.partition}}
	if on {
		g.m.pauses.Inc()
		g.cl.PauseFetchPartitions(at)
		return
	}
	g.cl.ResumeFetchPartitions(at)
}
