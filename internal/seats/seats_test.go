package seats_test

import (
	"testing"

	"github.com/penstock/penstock/internal/seats"
	"github.com/penstock/penstock/schema/fault"
)

func TestSeatsAreBounded(t *testing.T) {
	t.Parallel()
	s := seats.New(seats.Params{All: 3, PerTenant: 2})
	take := func(tenant string, want fault.Code) func() {
		t.Helper()
		leave, err := s.Take(tenant, "streams", "close some")
		if want == "" {
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		if fault.CodeOf(err) != want || fault.RetryAfterOf(err) == 0 {
			t.Fatalf("got %v, want %s", err, want)
		}
		return nil
	}
	first := take("acme", "")
	take("acme", "")
	take("acme", fault.Throttled)
	other := take("other", "")
	take("third", fault.Unavailable)
	take("acme", fault.Throttled) // their own doing, even where all is full
	other()
	take("acme", fault.Throttled)
	first()
	take("acme", "")
	take("third", "")
	take("third", fault.Unavailable)
}
