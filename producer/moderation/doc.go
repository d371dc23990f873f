// Package moderation asks a filter what it thinks of an input: the operator's
// endpoint of the OpenAI moderations API.
//
// It is a plain call and no task. Its answer is wanted before anything else is
// done, so it must not wait behind what it is to judge; it costs a filter next to
// nothing; and one that is lost is asked again. So nothing is written down, and
// nothing is promised but an answer or an error.
package moderation
