// Package batch forms the batches of a pool. It is pure: one loop owns a
// Batcher, tells it the time and how many calls could start, and is told which
// batch goes now or when to look again. It starts no goroutine and arms no
// timer.
//
// Guarantees: no item is lost or doubled; items of one key leave in the order
// they came; a batch never exceeds the item's own maximum, the policy's size or
// its token budget (an item above the budget goes alone); nothing is kept back
// for company longer than the policy's delay, and nothing waits for ever for a
// call that hangs.
//
// A batch goes as soon as a call can start, with everything that waits, unless
// waiting a little for company is worth more than it costs. What a call costs
// is learned (Curve), as are how fast tasks arrive and how many calls at once
// the engines really run side by side: a serial engine that is offered eight
// calls runs none faster, and batches cut for its queue are only smaller.
package batch
