//go:build !integration

package sweep_test

// onServers: the tests run on a broker and a store in their own process.
const onServers = false
