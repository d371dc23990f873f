package follow

import (
	"testing"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func TestTheTailVouchesOnlyForWhatItRemembers(t *testing.T) {
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now().Truncate(time.Millisecond)
	at := func(ms int) task.ID { return minter.New("acme", start.Add(time.Duration(ms)*time.Millisecond)) }
	ended := func(id task.ID, s task.Status) *terminal.Terminal {
		return &terminal.Terminal{TaskID: id, Status: s}
	}
	tl := newTail(4, 10*time.Millisecond)
	if _, won, covered := tl.observe(ended(at(7), task.Succeeded), 0); !won || covered {
		t.Error("vouched before it began")
	}
	tl.begin(start)
	for id, want := range map[task.ID]bool{at(5): false, at(10): false, at(11): true} {
		if _, _, covered := tl.observe(ended(id, task.Succeeded), 1); covered != want {
			t.Errorf("%s: covered %v, want %v", id.Time().Sub(start), covered, want)
		}
	}
	first := at(100)
	if _, won, covered := tl.observe(ended(first, task.Dead), 2); !won || !covered {
		t.Error("did not vouch for a task it knows whole")
	}
	if _, won, _ := tl.observe(ended(first, task.Succeeded), 3); won {
		t.Error("a second terminal won")
	}
	one := uint8(1)
	reopened := &terminal.Terminal{TaskID: first, Status: terminal.Reopened, Generation: &one}
	if st, won, _ := tl.observe(reopened, 4); !won || st.Generation != 1 {
		t.Error("a redrive was not folded")
	}
	for i := range 8 { // push it out
		tl.observe(ended(at(200+i), task.Succeeded), int64(10+i))
	}
	if _, _, covered := tl.observe(ended(first, task.Cancelled), 30); covered {
		t.Error("vouched for a task it has forgotten")
	}
	if _, _, covered := tl.observe(ended(at(300), task.Cancelled), 31); !covered {
		t.Error("does not vouch for a new task")
	}
	if n := len(tl.young) + len(tl.old); n > 4 {
		t.Errorf("remembers %d tasks", n)
	}
}
