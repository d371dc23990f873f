// Package recall gives a task of a session what was said in it before.
//
// A session's turns are records of `penstock.conversations`, in one partition;
// what was answered is the terminal that won, and is kept nowhere else. Before
// an attempt a task registers its own turn and waits until it sees it: then it
// sees every turn before it too. Of these it takes the newest that fit the
// session's budget.
//
// Guarantee: an attempt is given the winning answer of every turn of its lane
// that came before and fits, or it does not run. While Redis is away, or is
// rebuilt, it waits, which costs no attempt.
package recall
