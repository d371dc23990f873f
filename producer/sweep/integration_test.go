//go:build integration

package sweep_test

// onServers: the tests run on the Kafka and Redis that the environment names.
const onServers = true
