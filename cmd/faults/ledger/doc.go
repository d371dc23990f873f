// Package ledger puts load on a running Penstock while others wrong it, keeps
// account of every answer, and says afterwards what was lost, shown twice or
// changed.
//
// The method is that of Jepsen: each submit is recorded as accepted, refused or
// unknown, every observation of a task is kept, and the account is then held
// against the log on Kafka. What the ledger does not know it calls unknown.
//
// Driver submits, Watcher reads streams, Poller polls, Commits samples what the
// workers committed; Check draws the Verdict. The package has no testing.T: the
// fault ladder, the chaos runs and the soak share it.
package ledger
