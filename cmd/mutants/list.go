package main

// mutants is every promise that could be lost in silence, each with the tests
// that hold it.
func mutants() []mutant {
	return concat(consuming(), settling(), remembering(), folding(), streaming(), identity(), redriving(), backends(), blobs(), openAI(), bulkJobs(), calling(), simulated())
}

func concat(lists ...[]mutant) []mutant {
	var out []mutant
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func consuming() []mutant {
	return []mutant{
		{
			name: "commit-highest-seen", rule: "a commit is derived from settled offsets only",
			file: "worker/consume/tracker.go", old: "return t.base, encodeMetadata(t.base, t.bitmap())", new: "return t.next, encodeMetadata(t.next, nil)",
			tests: []string{"./worker/consume"},
		},
		{
			name: "bitmap-claims-the-delivered", rule: "a commit's bitmap names settled offsets only",
			file: "worker/consume/tracker.go", old: "if t.has(t.base + int64(i*8+j)) {", new: "if t.base+int64(i*8+j) < t.next {",
			tests: []string{"./worker/consume"},
		},
		{
			name: "commit-for-the-lost", rule: "15: nothing is committed for a partition that was taken away",
			file: "worker/consume/commit.go", old: "if s.o.revoked && !s.final {", new: "if s.o.revoked && s.offset < 0 {",
			tests: []string{"./worker/consume"},
		},
		{
			name: "settled-after-the-revoke", rule: "15: what is settled after a partition was taken away is not committed",
			file: "worker/consume/rebalance.go", old: "o.revoked = true\n\t\t\to.backlog = nil", new: "o.backlog = nil",
			tests: []string{"./worker/consume"},
		},
		{
			name: "pause-outlives-the-assignment", rule: "16: a partition that comes back is not paused for ever",
			file: "worker/consume/rebalance.go", old: "g.pause(o, false) // the client", new: "// the client",
			tests: []string{"./worker/consume"}, run: "Paus",
		},
		{
			name: "no-span-limit", rule: "commit metadata never overflows",
			file: "worker/consume/tracker.go", old: "case offset >= t.base+Span:\n\t\treturn Full", new: "case offset < 0:\n\t\treturn Full",
			tests: []string{"./worker/consume"},
		},
		{
			name: "hop-stands-still", rule: "20: every republication raises the hop, and with it the fence",
			file: "worker/mover/mover.go", old: "p.Hop++", new: "",
			tests: []string{"./worker/mover"},
		},
	}
}

func remembering() []mutant {
	return []mutant{
		{
			name: "reads-before-its-own-turn", rule: "a session's memory is read once the task sees its own turn",
			file: "worker/recall/wait.go", old: "if err != nil || !there {\n\t\treturn nil, -1, err\n\t}", new: "if err != nil {\n\t\treturn nil, -1, err\n\t}\n\tif !there {\n\t\ts, err = r.p.Sessions.Session(ctx, t.Tenant, t.SessionID, convstore.MaxTurns)\n\t\tif err == nil && len(s.Turns) > 0 {\n\t\t\treturn s, len(s.Turns) - 1, nil\n\t\t}\n\t\treturn nil, -1, nil\n\t}",
			tests: []string{"./worker/recall"},
		},
		{
			name: "waits-for-no-answer", rule: "a turn of the lane is remembered although its end is not projected yet",
			file: "worker/recall/wait.go", old: "return t.Lane == now.lane && !r.handedOn(ctx, t.TaskID, s, now)", new: "return t.Lane == now.lane && r.handedOn(ctx, t.TaskID, s, now)",
			tests: []string{"./worker/recall"},
		},
		{
			name: "forgets-while-rebuilding", rule: "what a lost Redis does not say yet is not taken for unended",
			file: "worker/recall/wait.go", old: "case !s.At.CaughtUp():\n\t\treturn true", new: "case !s.At.CaughtUp():\n\t\treturn t.Lane == now.lane && !r.handedOn(ctx, t.TaskID, s, now)",
			tests: []string{"./worker/recall"},
		},
		{
			name: "remembers-failures", rule: "only what succeeded is remembered",
			file: "worker/recall/wait.go", old: "if s.Status == task.Succeeded {", new: "if !s.Open() {",
			tests: []string{"./worker/recall"},
		},
		{
			name: "runs-without-memory", rule: "a task never runs without its memory",
			file: "worker/attempt/collect.go", old: "if t.Task.Payload.Ref == nil && !t.Task.Memory {", new: "if t.Task.Payload.Ref == nil {",
			tests: []string{"./worker/attempt"},
		},
		{
			name: "lag-is-taken-for-the-end", rule: "a turn is left out as handed on only if the whole log says so",
			file: "worker/recall/wait.go", old: "return s.At.Next >= end", new: "return s.At.Next >= min(end, s.At.Next)",
			tests: []string{"./worker/recall"},
		},
		{
			name: "kept-settings-come-back", rule: "settings that are written again undo nothing newer",
			file: "internal/convstore/lua/apply.lua", old: "return known[2] and tonumber(made) <= tonumber(known[2])", new: "return false",
			tests: []string{"./internal/convstore"},
		},
		{
			name: "memory-in-company", rule: "nobody waits for another's memory",
			file: "worker/dispatch/feed.go", old: "e.task.Payload.Ref != nil || e.task.Memory {", new: "e.task.Payload.Ref != nil {",
			tests: []string{"./worker/dispatch"},
		},
	}
}

func settling() []mutant {
	return []mutant{
		{
			name: "successor-joins", rule: "10: a record published again is not settled with its forerunner",
			file: "worker/dispatch/entry.go", old: "return e.out.again != nil && p.Hop > e.progress.Hop", new: "return e.out.again != nil && p.Hop > e.progress.Hop && false",
			tests: []string{"./worker/dispatch"},
		},
		{
			name: "settle-without-ack", rule: "a delivery is settled only after the broker has what replaces it",
			file: "worker/dispatch/publish.go", old: "\t\tl.again(e.out.failures, func() { l.send(e) })\n\t\te.out.failures++", new: "\t\tl.settle(e, \"published\")",
			tests: []string{"./worker/dispatch"},
		},
		{
			name: "dead-before-its-letter", rule: "4: dead letter first, then the dead terminal",
			file: "worker/dispatch/publish.go", old: "case o.letter != nil:", new: "case o.letter != nil && o.terminal == nil:",
			tests: []string{"./worker/dispatch"},
		},
		{
			name: "duplicates-run-twice", rule: "10: one entry in flight per task and generation; a duplicate joins it",
			file: "worker/dispatch/admit.go", old: "if e, ok := l.entries[id]; ok {", new: "if e, ok := l.entries[id]; ok && e == nil {",
			tests: []string{"./worker/dispatch"},
		},
		{
			name: "ended-tasks-run", rule: "14: a task that has ended is settled without a run",
			file: "worker/attempt/runner.go", old: "results[i].Moot = true", new: "results[i].Moot = false",
			tests: []string{"./worker/attempt", "./worker/dispatch"},
		},
		{
			name: "expired-early", rule: "20: expiry only after the deadline and two seconds",
			file: "worker/dispatch/admit.go", old: "due := e.task.Deadline.Add(l.p.ExpiryGrace)", new: "due := e.task.Deadline.Add(-l.p.ExpiryGrace)",
			tests: []string{"./worker/dispatch"},
		},
		{
			name: "order-lost-on-retry", rule: "18: the next of a key waits while the first is retried",
			file: "worker/dispatch/outcome.go", old: "l.sleep(e, wait, func() { l.push(e, l.queue.Return) })", new: "l.queue.Done(e.item())\n\tl.sleep(e, wait, func() { l.push(e, l.queue.Push) })",
			tests: []string{"./worker/dispatch"},
		},
		{
			name: "queue-without-a-limit", rule: "18: the limit of a key's queue is not looked at",
			file: "producer/ingest/queue.go", old: "if standing == taskstore.QueueFull {", new: "if standing < taskstore.QueueFull {",
			tests: []string{"./producer/ingest"},
		},
		{
			name: "queue-counted-apart", rule: "18: who asks for a place in a key's queue and who gets it is decided at once",
			file: "internal/taskstore/lua/enqueue.lua", old: "if redis.call('ZCARD', KEYS[1]) >= limit then return 0 end", new: "",
			tests: []string{"./internal/taskstore"},
		},
		{
			name: "neighbours-pay", rule: "a failed batch costs the neighbours of the culprit nothing",
			file: "worker/attempt/runner.go", old: "if len(live) < 2 {\n\t\treturn nil", new: "if len(live) < 99 {\n\t\treturn nil",
			tests: []string{"./worker/attempt"},
		},
		{
			name: "an-end-of-ones-own-condemns-the-rest", rule: "no task dies of a neighbour in its batch",
			file: "worker/attempt/runner.go", old: "if class := fault.ClassOf(err); !own && class", new: "if class := fault.ClassOf(err); own {\n\t\t\treturn nil\n\t\t} else if class",
			tests: []string{"./worker/attempt"},
		},
	}
}

func folding() []mutant {
	return []mutant{
		{
			name: "last-terminal-wins", rule: "the first terminal of a generation wins",
			file: "schema/terminal/terminal.go", old: "if !r.Status.Terminal() || !s.Open() || (r.Gen", new: "if !r.Status.Terminal() || (r.Gen",
			tests: []string{"./schema/terminal"},
		},
		{
			name: "last-terminal-wins-in-redis", rule: "the first terminal of a generation wins",
			file: "internal/taskstore/lua/apply.lua", old: "elseif s == '' and (generation", new: "elseif (generation",
			tests: []string{"./internal/taskstore"},
		},
		{
			name: "last-terminal-wins-to-clients", rule: "what clients see of a task is one register",
			file: "internal/taskstore/lua/apply.lua", old: "elseif s == '' and (generation", new: "elseif (generation",
			tests: []string{"./cmd/history"},
		},
		{
			name: "hints-outlive-the-end", rule: "a task that has ended looks the same on every read path",
			file: "internal/taskstore/view.go", old: "f.View = api.OfTerminal(f.Terminal, r.state.Generation)\n\t\treturn f", new: "f.View = api.OfTerminal(f.Terminal, r.state.Generation)",
			tests: []string{"./internal/taskstore"},
		},
		{
			name: "reopened-without-death", rule: "4: only a dead task can be reopened",
			file: "internal/taskstore/lua/apply.lua", old: "if s == 'dead' and tonumber(g)", new: "if s ~= '' and tonumber(g)",
			tests: []string{"./internal/taskstore"},
		},
		{
			name: "gap-in-the-log-applied", rule: "3: the projection never skips records",
			file: "internal/taskstore/lua/apply.lua", old: "if upcoming < tonumber(ARGV[1]) then return {1, upcoming} end", new: "",
			tests: []string{"./internal/taskstore"},
		},
		{
			name: "replay-applied-again", rule: "3: a record below the position changes nothing",
			file: "internal/taskstore/lua/apply.lua", old: "if tonumber(ARGV[a]) >= upcoming and status ~= '' then", new: "if status ~= '' then",
			tests: []string{"./internal/taskstore"},
		},
		{
			name: "old-terminal-returns", rule: "7: 410 never turns into 200",
			file: "internal/taskstore/apply.go", old: "case s.p.Gone(t.TaskID, now):", new: "case s.p.Gone(t.TaskID, now.Add(-1000*time.Hour)):",
			tests: []string{"./internal/taskstore"},
		},
		{
			name: "tail-vouches-for-old-tasks", rule: "5: a tail delivers what Redis confirms or what is younger than the tail",
			file: "internal/follow/tail.go", old: "return st, won, !t.since.IsZero() && r.TaskID.Time().After(t.since)", new: "return st, won, true",
			tests: []string{"./internal/follow"},
		},
		{
			name: "tail-vouches-without-redis", rule: "5: Redis' word counts only from where the tail began",
			file: "internal/follow/tail.go", old: "if !reads || !at.Known || at.Next < start ||", new: "if !reads || start < 0 ||",
			tests: []string{"./internal/follow"},
		},
	}
}

func streaming() []mutant {
	return []mutant{
		{
			name: "history-then-subscribe", rule: "streams subscribe first, then read history",
			file: "internal/follow/read.go", old: "if s.unready > 0 && !s.changes {\n\t\treturn nil\n\t}\n\tvar batch, rest []*watch\n\tif s.unready == 0 {", new: "var batch, rest []*watch\n\tif s.unready >= 0 {",
			tests: []string{"./internal/follow"},
		},
		{
			name: "holes-pass", rule: "tokens are gap-free within a fence: a hole is repaired or told",
			file: "internal/follow/stream.go", old: "return !w.ends && w.last.Less(it.ID) && !it.Follows(w.last)", new: "return false",
			tests: []string{"./internal/follow"},
		},
		{
			name: "gap-untold-to-the-reader", rule: "a hole that cannot be repaired is told",
			file: "internal/follow/tell.go", old: "case e.Follows(w.last), e.Type() == event.Snapshot,", new: "case true, e.Type() == event.Snapshot,",
			tests: []string{"./internal/follow"},
		},
		{
			name: "gap-told-as-a-hole", rule: "a loss is told once",
			file: "internal/eventlog/read.go", old: "return Follows(last, e.ID) || last.Fence == e.ID.Fence && e.Type() == event.Gap", new: "return Follows(last, e.ID)",
			tests: []string{"./internal/eventlog", "./internal/follow"},
		},
		{
			name: "end-of-another-attempt", rule: "an end of another attempt than was shown comes behind restart and its text",
			file: "internal/follow/tell.go", old: "if !ok || fence == w.shown.String() {", new: "if ok || fence == w.shown.String() {",
			tests: []string{"./internal/follow"},
		},
		{
			name: "new-attempt-unannounced", rule: "a new fence is announced by restart",
			file: "internal/follow/stream.go", old: "e = restarted(e)", new: "_ = restarted",
			tests: []string{"./internal/follow"},
		},
		{
			name: "said-twice", rule: "no event is delivered twice",
			file: "internal/follow/stream.go", old: "if w.done || !w.last.Less(e.ID) {", new: "if w.done {",
			tests: []string{"./internal/follow"},
		},
		{
			name: "zombie-makes-the-stream", rule: "1: a lost stream is told, not made anew by an append",
			file: "internal/eventlog/lua/append.lua", old: "'NOMKSTREAM', ", new: "",
			tests: []string{"./internal/eventlog"},
		},
		{
			name: "refused-counts-as-ours", rule: "10: a refused sequence is ours only under our nonce",
			file: "internal/eventlog/lua/append.lua", old: "if pad(fence) > ARGV[3] or top[2][4] ~= ARGV[1] then", new: "if pad(fence) > ARGV[3] then",
			tests: []string{"./internal/eventlog"},
		},
		{
			name: "lost-end-written-over", rule: "4: events whose end was lost are not written on as if nothing had happened",
			file: "internal/eventlog/lua/append.lua", old: "if tonumber(seq) < have then return refuse(-2) end", new: "",
			tests: []string{"./internal/eventlog"},
		},
		{
			name: "count-kept-in-doubt", rule: "4: what a claim counts is believed no more once an append was refused",
			file: "internal/eventlog/lua/append.lua", old: "  redis.call('HDEL', KEYS[2], count)\n  return code", new: "  return code",
			tests: []string{"./internal/eventlog"},
		},
		{
			name: "count-of-another-attempt", rule: "4: what a claim counts is of one attempt of one writer",
			file: "internal/eventlog/lua/append.lua", old: "local doubt = redis.call('HINCRBY', KEYS[2], count, events) ~= have + 1 + events or have < 0",
			new:   "local doubt = redis.call('HINCRBY', KEYS[2], count, events) < have + 1 + events or have < 0",
			tests: []string{"./internal/eventlog"},
		},
		{
			name: "fold-unfenced", rule: "whoever was replaced folds nothing",
			file: "internal/eventlog/lua/fold.lua", old: "if not top or top[2][4] ~= ARGV[5] then return 0 end", new: "",
			tests: []string{"./internal/eventlog"},
		},
		{
			name: "proof-skipped", rule: "a lost stream is begun again only by who is proven to own the task",
			file: "worker/attempt/loss.go", old: "if st.owned(ctx) == nil {", new: "if _ = st.owned(ctx); true {",
			tests: []string{"./worker/attempt"},
		},
		{
			name: "proof-outlived", rule: "who has lost the task to another repeats nothing after a loss",
			file: "worker/attempt/loss.go", old: "case !ok:", new: "case !ok && st.owned == nil:",
			tests: []string{"./worker/attempt"}, run: "TestWhateverIsLost",
		},
		{
			name: "older-attempt-appends", rule: "a newer attempt refuses the older one",
			file: "internal/eventlog/lua/append.lua", old: "if pad(fence) > ARGV[3] or top", new: "if top",
			tests: []string{"./internal/eventlog", "./worker/attempt"},
		},
		{
			name: "gap-untold-by-the-writer", rule: "what a writer cannot repeat is told as a gap",
			file: "worker/attempt/loss.go", old: "if seq := st.sent.dropped; seq > 0 {", new: "if seq := st.sent.dropped; seq > 1<<40 {",
			tests: []string{"./worker/attempt"},
		},
		{
			name: "tokens-after-the-end", rule: "13: the terminal's id sorts last, and Redis refuses later tokens",
			file: "schema/event/id.go", old: "return Fence(uint64(generation)<<generationShift | (1<<generationShift - 1))", new: "return Fence(uint64(generation) << generationShift)",
			tests: []string{"./schema/event"},
		},
	}
}

func identity() []mutant {
	return []mutant{
		{
			name: "fence-without-the-group", rule: "two workers on one hop differ by the group's generation",
			file: "schema/event/id.go", old: "uint64(hop)<<hopShift | uint64(group)<<tryBits | uint64(try)", new: "uint64(hop)<<hopShift | uint64(try)",
			tests: []string{"./schema/event"},
		},
		{
			name: "key-of-any-tenant", rule: "8: a keyed id covers the tenant",
			file: "schema/task/id.go", old: "text = appendField(text, tenant)\n\ttext = appendField(text, key)", new: "text = appendField(text, key)",
			tests: []string{"./schema/task"},
		},
		{
			name: "key-of-any-body", rule: "8: a keyed id covers the body",
			file: "schema/task/id.go", old: "sum(append(text, bodyHash[:]...))", new: "sum(text)",
			tests: []string{"./schema/task"},
		},
		{
			name: "id-of-any-tenant", rule: "I7: an id is bound to the tenant it was issued to",
			file: "schema/task/id.go", old: "text = appendField(text, tenant)\n\treturn keyed.sum(append(text, body...))", new: "return keyed.sum(append(text, body...))",
			tests: []string{"./schema/task"},
		},
		{
			name: "results-anywhere", rule: "2: a task's results share one computed partition",
			file: "internal/tasktopic/publisher.go", old: "kafkaclient.PinPartition(rec, topic.PartitionOf(rec.Key, p.p.ResultsPartitions))", new: "kafkaclient.PinPartition(rec, topic.PartitionOf(rec.Key, p.p.ResultsPartitions)/2)",
			tests: []string{"./internal/tasktopic"},
		},
		{
			name: "accepted-without-ack", rule: "I6: 202 only after acks=all",
			file: "producer/ingest/ingest.go", old: "if err != nil {\n\t\treturn Receipt{}, publishFault(err)", new: "if err != nil && d == nil {\n\t\treturn Receipt{}, publishFault(err)",
			tests: []string{"./producer/ingest"},
		},
	}
}

func redriving() []mutant {
	return []mutant{
		{
			name: "redrive-unread", rule: "4: a task is published again only after its reopening was read back as valid",
			file: "worker/redrive/step.go", old: "return r.settledVerdict(ctx, c, job, ack.Offset+1)", new: "_ = ack\n\treturn verdictOurs, nil",
			tests: []string{"./worker/redrive"},
		},
		{
			name: "redrive-forgets-the-begun", rule: "a job that is taken over finishes what was begun",
			file: "worker/redrive/runner.go", old: "if u.t.inherited {", new: "if u.t.inherited && len(todo) == 0 {",
			tests: []string{"./worker/redrive"},
		},
		{
			name: "canary-unheard", rule: "a job whose first tasks end badly again aborts",
			file: "worker/redrive/guard.go", old: "case float64(g.seen.DiedAgain) > may:", new: "case g.seen.Ended > all:",
			tests: []string{"./worker/redrive"}, run: "Canary",
		},
		{
			name: "redrive-for-ever", rule: "a task that comes back each time is not redriven without end",
			file: "worker/redrive/refuse.go", old: "case int(generation) >= r.p.MaxRedrives && !force:", new: "case int(generation) >= lastForced && !force:",
			tests: []string{"./worker/redrive"}, run: "LoopGuard",
		},
		{
			name: "redrive-too-late", rule: "7: no task is redriven whose result would come past its time to live",
			file: "worker/redrive/refuse.go", old: "case r.past(r.until(c.task.ID)):", new: "case false && r.past(r.until(c.task.ID)):",
			tests: []string{"./worker/redrive"}, run: "TooOld",
		},
	}
}

func backends() []mutant {
	return []mutant{
		{
			name: "short-answer-accepted", rule: "22: a batch reply of another size fails the whole batch",
			file: "worker/attempt/runner.go", old: "if len(out) != len(items) {", new: "if len(out) > len(items) {",
			tests: []string{"./worker/attempt"},
		},
	}
}

func openAI() []mutant {
	return []mutant{
		{
			name: "attempts-joined", rule: "texts of two attempts are never joined on a stream of the OpenAI API",
			file: "producer/openai/script.go", old: "if s.Began() {\n\t\t\treturn nil, ErrInterrupted", new: "if s.Began() && e.Text == \"never\" {\n\t\t\treturn nil, ErrInterrupted",
			tests: []string{"./producer/openai"},
		},
		{
			name: "end-forgets-the-lost", rule: "an answer that is told as whole has all of its output",
			file: "producer/openai/script.go", old: "case event.Gap:\n\t\ts.held = true", new: "case event.Gap:\n\t\ts.held = false",
			tests: []string{"./producer/openai"},
		},
		{
			name: "part-for-the-whole", rule: "a choice without finish_reason is no answer",
			file: "producer/openai/choice.go", old: "c.members == nil || c.finish() == \"\"", new: "c.members == nil",
			tests: []string{"./producer/openai"},
		},
		{
			name: "clean-end-of-a-failed-stream", rule: "a failed stream of the OpenAI API never ends as if it were whole",
			file: "producer/httpapi/openai_stream.go", old: "if s.send(s.teller.last(failure, err)) != nil {\n\t\treturn s.abort(ctx)\n\t}", new: "",
			tests: []string{"./producer/httpapi"},
		},
		{
			name: "told-twice", rule: "nobody is told an event of a response up to the number they named",
			file: "producer/openai/response_script.go", old: "if n <= s.p.After || s.mute() {", new: "if n < s.p.After || s.mute() {",
			tests: []string{"./producer/openai"},
		},
		{
			name: "void-without-a-word", rule: "texts of two attempts are never joined on the stream of a response",
			file: "producer/openai/response_script.go", old: "if seen {\n\t\treturn ErrInterrupted", new: "if seen && s.begun > 0 {\n\t\treturn ErrInterrupted",
			tests: []string{"./producer/openai"},
		},
		{
			name: "numbers-of-a-lost-history", rule: "who resumes where events are lost is told the end alone",
			file: "producer/openai/response_script.go", old: "return s.lost && s.p.After >= 0", new: "return s.held && s.p.After >= 0",
			tests: []string{"./producer/openai"},
		},
		{
			name: "numbers-lent-to-the-next", rule: "an attempt never has numbers that readers of the one before have seen",
			file: "producer/openai/response_script.go", old: "s.next += attemptStep - s.next%attemptStep", new: "s.next++",
			tests: []string{"./producer/openai"},
		},
		{
			name: "end-that-looks-like-one", rule: "a stream that can be resumed is cut, not ended",
			file: "producer/httpapi/openai_stream.go", old: "case s.k.resumes && s.started && outcome != outcomeInterrupted", new: "case s.k.resumes && s.started && outcome == outcomeLeft",
			tests: []string{"./producer/httpapi"}, run: "Resumed|Cut",
		},
		{
			name: "response-before-its-record", rule: "a response is stored before its task is written",
			file: "producer/ingest/claim.go", old: "return d.before(ctx, d.task)", new: "_ = d.before(ctx, d.task)\n\t\treturn nil",
			tests: []string{"./producer/ingest"}, run: "Before",
		},
		{
			name: "background-dies-with-its-client", rule: "a response in the background outlives its client",
			file: "producer/httpapi/openai_left.go", old: "!alone || k.response.Background()", new: "!alone",
			tests: []string{"./producer/httpapi"}, run: "Outlives",
		},
		{
			name: "cancel-what-a-retry-took", rule: "a task that a retry took over is not cancelled",
			file: "internal/repeat/repeat.go", old: "return taken > 0,", new: "return taken >= 0,",
			tests: []string{"./internal/repeat"},
		},
		{
			name: "cancel-what-was-left-again", rule: "a task that a retry took over and left has its grace anew",
			file: "internal/repeat/repeat.go", old: "ZRemRangeByScore(ctx, left, score, score)", new: "ZRemRangeByScore(ctx, left, score, \"+inf\")",
			tests: []string{"./internal/repeat"},
		},
	}
}

func blobs() []mutant {
	return []mutant{
		{
			name: "blob-unchecked", rule: "6: who reads a blob checks its hash",
			file: "internal/blob/verify.go", old: "case v.meter.sum() != v.ref.SHA256:", new: "case false:",
			tests: []string{"./internal/blob"}, run: "Directory",
		},
		{
			name: "sweep-a-day-early", rule: "6: a blob lives as long as a record may refer to it",
			file: "internal/blob/place.go", old: ">= 24*time.Hour+life", new: ">= life",
			tests: []string{"./internal/blob"}, run: "Sweeper",
		},
		{
			name: "unmounted-is-gone", rule: "6: a store that is not there has lost nothing",
			file: "internal/blob/dir.go", old: "noRoot != nil {", new: "noRoot != nil && false {",
			tests: []string{"./internal/blob"}, run: "Volume",
		},
		{
			name: "refer-to-nothing", rule: "a reference is given out only for what is stored",
			file: "internal/claimcheck/claimcheck.go", old: "return p, fmt.Errorf(\"deposit payload: %w\", err)", new: "return task.Payload{Ref: &ref}, nil",
			tests: []string{"./producer/ingest"}, run: "Store",
		},
		{
			name: "redrive-an-old-blob", rule: "6: a redrive makes its payload last as long as its record",
			file: "worker/redrive/renew.go", old: "c.task.Payload.Ref = &renewed", new: "_ = renewed",
			tests: []string{"./worker/redrive"}, run: "Renew",
		},
	}
}

// simulated is what the seeds of the simulation notice without the tests of the
// packages.
func simulated() []mutant {
	return []mutant{
		{
			name: "sim-commit-highest-seen", rule: "I1, I5: a commit is derived from settled offsets only",
			file: "worker/consume/tracker.go", old: "return t.base, encodeMetadata(t.base, t.bitmap())", new: "return t.next, encodeMetadata(t.next, nil)",
			tests: []string{"./cmd/sim"}, run: "TestSimulation",
		},
		{
			name: "sim-dropped-at-revoke", rule: "I1, I5: what is unfinished at a revoke is the next owner's",
			file: "worker/consume/rebalance.go", old: "if o.dirty && o.track != nil {",
			new:   "for offset := range o.pending {\n\t\t\t\to.dirty = o.track.Settle(offset) || o.dirty\n\t\t\t}\n\t\t\tif o.dirty && o.track != nil {",
			tests: []string{"./cmd/sim"}, run: "TestSimulation",
		},
		{
			name: "sim-settle-without-ack", rule: "I1, I5: a delivery is settled only after the broker has what replaces it",
			file: "worker/dispatch/publish.go", old: "\t\tl.again(e.out.failures, func() { l.send(e) })\n\t\te.out.failures++", new: "\t\tl.settle(e, \"published\")",
			tests: []string{"./cmd/sim"}, run: "TestSimulation",
		},
		{
			name: "sim-last-terminal-wins", rule: "I2, I3: the first terminal of a generation wins",
			file: "internal/taskstore/lua/apply.lua", old: "elseif s == '' and (generation", new: "elseif (generation",
			tests: []string{"./cmd/sim"}, run: "TestSimulation",
		},
		{
			name: "sim-webhooks-lost-at-takeover", rule: "webhooks: who takes a partition over goes on with its deliveries",
			file: "resultsvc/webhook/partition.go", old: "if !d.settled() {\n\t\t\t\tc.enqueue(d)", new: "if d.settled() {\n\t\t\t\tc.enqueue(d)",
			tests: []string{"./cmd/sim"}, run: "TestSimulation",
		},
		{
			name: "sim-accepted-without-ack", rule: "I6: 202 only after acks=all",
			file: "producer/ingest/ingest.go", old: "if err != nil {\n\t\treturn Receipt{}, publishFault(err)", new: "if err != nil && d == nil {\n\t\treturn Receipt{}, publishFault(err)",
			tests: []string{"./cmd/sim"}, run: "TestSimulation",
		},
	}
}

func bulkJobs() []mutant {
	return []mutant{
		{
			name: "anybody-adds-to-a-batch", rule: "23: only the owner's entries count",
			file: "producer/bulk/ledger.go", old: "if b.seat.Heard(e.Owner, e.Epoch, heard) {", new: "if b.seat.Heard(e.Owner, e.Epoch, heard) || true {",
			tests: []string{"./producer/bulk"},
		},
		{
			name: "a-segment-counts-twice", rule: "23: a segment whose acknowledgement was lost counts once",
			file: "producer/bulk/ledger.go", old: "if s.N != b.segments {", new: "if s.N > b.segments {",
			tests: []string{"./producer/bulk"},
		},
		{
			name: "finished-lines-run-again", rule: "23: who takes a batch over goes on with the lines that have no result",
			file: "producer/bulk/work.go", old: "case u.t.done.has(u.in.place):", new: "case u.t.done.has(-1):",
			tests: []string{"./producer/bulk"},
		},
	}
}
