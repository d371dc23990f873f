package sim_test

import (
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/penstock/penstock/schema/topic"
)

// wedge is a fault of the embedded broker, not of ours. It counts a member whose
// session ends while it waits for its sync as one fewer that waits to join, so
// the members of a group that are left never look complete; and it begins the
// deadline of a rebalance anew with each join, so two that try again by turns
// never reach it. A real broker keeps such a member and has one deadline. One
// member alone gets past it.
type wedge struct {
	since map[string]time.Time // when a group was first seen in the rebalance it is in
}

const (
	// wedgedAfter is several times the time that members have to join (30 s).
	wedgedAfter = 2 * time.Minute
	// alone is longer than a member waits for its join to be answered (40 s).
	alone = 100 * time.Second
)

// mend leaves the groups that do not get out of a rebalance to one member for a
// while.
func (g *wedge) mend(w *world, adm *kadm.Client) {
	members := map[string][]*instance{
		topic.WorkerGroup(pool): w.workers[:2], topic.RetryGroup: w.workers[:2], topic.ProjectorGroup: w.results, topic.WebhookGroup: w.results,
	}
	groups, err := adm.DescribeGroups(w.t.Context(), topic.WorkerGroup(pool), topic.RetryGroup, topic.ProjectorGroup, topic.WebhookGroup)
	w.must(err)
	if g.since == nil {
		g.since = map[string]time.Time{}
	}
	for _, group := range groups.Sorted() {
		since, known := g.since[group.Group]
		switch {
		case group.State != "PreparingRebalance":
			delete(g.since, group.Group)
		case !known:
			g.since[group.Group] = time.Now()
		case time.Since(since) > wedgedAfter:
			w.t.Logf("seed %d: the broker does not end a rebalance of %s", w.seed, group.Group)
			for _, i := range members[group.Group][1:] {
				i.stop()
			}
			time.Sleep(alone)
			for _, i := range members[group.Group][1:] {
				i.start()
			}
			clear(g.since)
			return
		}
	}
}
