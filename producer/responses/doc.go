// Package responses keeps what responses of the OpenAI API were asked for, and
// finds them again.
//
// A response is a task; what is kept is its request alone, on
// `penstock.conversations`, before the task is written. So a response that was
// told of can be found as long as its task's result can be read, and how it ended
// is what that says. A request whose task was then not accepted is never found:
// nobody was told its id.
package responses
