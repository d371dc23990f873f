// Package joblog is what the durable jobs of penstock.control share. The topic
// has one partition, so every process that reads it from the start folds the same
// entries in the same order to the same jobs: a claim is granted by the first
// entry with the next epoch, with no lock and no comparison of clocks.
//
// Guarantee: at most one process believes that it owns a job and is right. One
// that is wrong (it slept past its lease) writes entries under an epoch that is
// over, which every reader can tell, and repeats steps, which must be harmless.
//
// What a job is, and what its entries say, belongs to whoever runs it.
package joblog
