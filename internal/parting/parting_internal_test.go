package parting

import (
	"testing"
	"time"
)

func TestClientsDoNotComeBackAsAHerd(t *testing.T) {
	const lifetime = time.Hour
	ages, waits := map[time.Duration]bool{}, map[time.Duration]bool{}
	for range 1000 {
		age, wait := Age(lifetime), Wait()
		if age < lifetime*4/5 || age > lifetime*6/5 {
			t.Fatalf("a stream of %s is ended after %s", lifetime, age)
		}
		if wait < time.Second || wait >= 10*time.Second {
			t.Fatalf("asked to come back in %s", wait)
		}
		ages[age.Truncate(time.Minute)], waits[wait.Truncate(time.Second)] = true, true
	}
	if len(ages) < 20 || len(waits) != 9 {
		t.Errorf("1000 streams end in %d minutes, and come back in %d seconds", len(ages), len(waits))
	}
}
