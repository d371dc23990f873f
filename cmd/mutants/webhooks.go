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
			file: "resultsvc/webhook/ledger.go", old: "l.over[e.id] = struct{}{}", new: "",
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
