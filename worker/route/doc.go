// Package route chooses the backend of a pool that runs a call, and keeps calls
// away from backends that would only fail them: a breaker per backend and
// model, active health checks, a limit of calls at once, and a pause after "too
// many requests".
//
// Guarantees: a backend never runs more calls at once than its limit; only
// failures that its fault code says are the backend's feed its breaker, never
// a refused input, a quota or a cancel; while a breaker is half open one call a
// second tries the backend; and a pool without a usable backend says so, with
// the cause and a time to look again, so that nobody burns attempts on it.
package route
