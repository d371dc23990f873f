// Package dispatch is one pool's loop: it takes deliveries, lets the scheduler
// say which task runs next, forms batches, gives them to backends, and turns
// each outcome into the record that settles the delivery.
//
// Delivery promise: a delivery is settled only after the broker acknowledged
// the record that replaces it: a terminal, a retry, or a dead letter and then
// its terminal. A record that cannot be written is kept and tried for ever.
//
// One goroutine owns all state; the goroutines that run batches and the Kafka
// client's callbacks only put events into its inbox.
//
//	delivery ─▶ queued ─▶ forming ─▶ running ─▶ publishing ─▶ settled
//	              ▲ ▲                  │   │
//	              │ └──── waiting ◀────┘   └▶ (retry tier, dead letter)
//	              └── a wait in memory ends
package dispatch
