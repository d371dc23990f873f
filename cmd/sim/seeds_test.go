//go:build !race

package sim_test

// defaultSeeds is how many seeds a run of the test takes, unless the environment
// says otherwise.
const defaultSeeds = 20
