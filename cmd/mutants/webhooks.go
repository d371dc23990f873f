package main

func calling() []mutant {
	return []mutant{
		{
			name: "webhook-after-its-task", rule: "a webhook is registered before its task is written",
			file: "producer/ingest/ingest.go", old: "if err := d.awaitRegistration(waiting); err != nil {", new: "if err := waiting.Err(); err != nil {",
			tests: []string{"./producer/ingest"}, run: "Webhook",
		},
		{
			name: "webhook-unread", rule: "an end is matched only once all that was registered before it was read",
			file: "resultsvc/webhook/match.go", old: "p.live && p.ledger.next >= end", new: "p.live && end >= 0",
			tests: []string{"./resultsvc/webhook"}, run: "Matched",
		},
		{
			name: "webhook-without-tombstone", rule: "a repeated submit is not told twice",
			file: "resultsvc/webhook/ledger.go", old: "l.over[e.id] = e.endedAt()", new: "",
			tests: []string{"./resultsvc/webhook"}, run: "Repeat|Over",
		},
		{
			name: "webhook-redrive-forgotten", rule: "a redrive that was matched before a restart is known after it",
			file: "resultsvc/webhook/ledger.go", old: "case webhook.Reopened:\n\t\te.learn(r.Fold())", new: "case webhook.Reopened:",
			tests: []string{"./resultsvc/webhook"}, run: "Redrive|StateOfTheResults",
		},
		{
			name: "webhook-second-counts", rule: "the first of each step counts",
			file: "resultsvc/webhook/ledger.go", old: "if int(r.Generation) <= e.ended {", new: "if int(r.Generation) < e.ended {",
			tests: []string{"./resultsvc/webhook"}, run: "Counts|Repeats",
		},
		{
			name: "batch-told-never", rule: "whoever takes an ended batch over announces its end",
			file: "producer/bulk/batch.go", old: "return b.Status.Ended() && (b.told || !b.wanted())", new: "return b.Status.Ended()",
			tests: []string{"./producer/bulk"}, run: "Kill|Announced",
		},
		{
			name: "batch-told-for-ever", rule: "a batch whose end is announced is over",
			file: "producer/bulk/ledger.go", old: "b.told = true", new: "",
			tests: []string{"./producer/bulk"}, run: "Announced",
		},
		{
			name: "webhook-impatient", rule: "a receiver in trouble says when it is called again",
			file: "resultsvc/webhook/schedule.go", old: "return max(own, min(wish, most)), true", new: "return max(own, min(0, most)), true",
			tests: []string{"./resultsvc/webhook"}, run: "Wish|AsksForTime",
		},
		{
			name: "webhook-inside", rule: "no webhook reaches an address inside",
			file: "internal/callback/target.go", old: "return p.guard().Safe", new: "return nil",
			tests: []string{"./internal/callback"},
		},
		{
			name: "webhook-redirected", rule: "no redirect of a receiver is followed",
			file: "resultsvc/webhook/send.go", old: "return http.ErrUseLastResponse", new: "return nil",
			tests: []string{"./resultsvc/webhook"}, run: "Status",
		},
	}
}
