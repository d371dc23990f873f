// Package callback is what the ingress and the results service must agree on
// about webhooks: which URLs may be called, and how a call is signed, as
// Standard Webhooks 1.0 has it.
//
// Guarantee: a URL that a caller names never reaches an address inside. It is
// looked at when it is registered, so that its owner hears why not, and what it
// resolves to is looked at again in each dial, when no name can change any more.
package callback
