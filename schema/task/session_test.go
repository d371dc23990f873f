package task_test

import (
	"strings"
	"testing"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

func TestASessionsKey(t *testing.T) {
	t.Run("is its id behind a prefix", func(t *testing.T) {
		if got := task.SessionKey("s-1"); got != "session.s-1" {
			t.Errorf("SessionKey = %q", got)
		}
	})
	t.Run("of the longest id fits an ordering key, and differs from its neighbour's", func(t *testing.T) {
		long := strings.Repeat("s", api.MaxName-1)
		a, b := task.SessionKey(long+"a"), task.SessionKey(long+"b")
		if len(a) > api.MaxName || a == b || !strings.HasPrefix(a, "session.") {
			t.Errorf("SessionKey = %q and %q", a, b)
		}
	})
	t.Run("is the id itself up to the last byte that fits", func(t *testing.T) {
		fits := strings.Repeat("s", api.MaxName-len("session."))
		if got := task.SessionKey(fits); got != "session."+fits {
			t.Errorf("SessionKey = %q", got)
		}
	})
}
