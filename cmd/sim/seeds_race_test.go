//go:build race

package sim_test

// defaultSeeds is fewer under the race detector, where a seed costs four times as
// much: as many as it takes for every fault to strike.
const defaultSeeds = 7
