// Package devstack is Kafka and Redis inside the process: kfake, franz-go's
// broker, and miniredis. `penstock dev`, the demo and whole-pipeline tests run
// on it without Docker, an account or a network.
//
// It is not for production: the broker has one goroutine and one replica, and
// the store keeps everything in one map. Both also run without sockets inside
// a testing/synctest bubble, where hours of backoff pass in milliseconds.
package devstack
