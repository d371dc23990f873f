// Command mutants breaks the source on purpose, one guarantee at a time, and
// demands that the tests notice.
//
// Each mutant replaces one piece of text in one file. The file on disk stays as
// it is: the go command builds with an overlay. A mutant is killed when the
// named tests fail, and survives when they pass; one that no longer applies, or
// does not compile, is an error, for then it would prove nothing.
//
//	mutants [-run REGEXP] [-list]
package main
