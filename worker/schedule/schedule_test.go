package schedule_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/schedule"
)

func item(c task.Class, tenant string, deadline int64, v int) schedule.Item[int] {
	return schedule.Item[int]{Model: "m", Class: c, Tenant: tenant, Deadline: deadline, Cost: 100, Value: v}
}

func TestClassesShareByWeightAndNoneStarves(t *testing.T) {
	q := schedule.New[int]()
	for i := range 1300 {
		for _, c := range task.Classes() {
			q.Push(item(c, "t", 0, i))
		}
	}
	got := map[task.Class]int{}
	for range 130 {
		it, _ := q.Pop("m")
		got[it.Class]++
	}
	if got[task.Interactive] != 80 || got[task.Standard] != 40 || got[task.Bulk] != 10 {
		t.Errorf("130 pops gave %v, want 80, 40 and 10", got)
	}
}

func TestTheEarliestDeadlineGoesFirst(t *testing.T) {
	q := schedule.New[int]()
	for i, deadline := range []int64{50, 10, 40, 10, 30} {
		q.Push(item(task.Standard, "t", deadline, i))
	}
	for _, want := range []int{1, 3, 4, 2, 0} {
		if it, _ := q.Pop("m"); it.Value != want {
			t.Errorf("popped %d, want %d", it.Value, want)
		}
	}
}

func TestTenantsShareByCost(t *testing.T) {
	q := schedule.New[int]()
	for i := range 1000 { // one tenant floods first, with dear tasks
		it := item(task.Standard, "flood", 0, i)
		it.Cost = 2000
		q.Push(it)
	}
	for i := range 400 {
		q.Push(item(task.Standard, "small", 1, i))
	}
	cost := map[string]int{}
	for range 200 {
		it, _ := q.Pop("m")
		cost[it.Tenant] += it.Cost
	}
	if ratio := float64(cost["flood"]) / float64(cost["small"]); ratio < 0.7 || ratio > 1.4 {
		t.Errorf("cost was shared %v", cost)
	}
}

func TestAKeysTasksRunOneAfterAnotherWhileOthersFlow(t *testing.T) {
	q := schedule.New[int]()
	for i := range 3 {
		it := item(task.Standard, "t", int64(100-i), i) // later ones have earlier deadlines
		it.Key = "chat"
		q.Push(it)
	}
	q.Push(item(task.Standard, "t", 1000, 9))
	first, _ := q.Pop("m")
	if first.Value != 0 {
		t.Fatalf("popped %d first, want the key's first", first.Value)
	}
	if other, _ := q.Pop("m"); other.Value != 9 {
		t.Fatalf("popped %d, want the task without a key", other.Value)
	}
	if it, ok := q.Pop("m"); ok {
		t.Fatalf("popped %d while the key is held", it.Value)
	}
	q.Return(first)
	if again, _ := q.Pop("m"); again.Value != 0 {
		t.Fatalf("popped %d, want the returned task before its followers", again.Value)
	}
	q.Done(first)
	if next, _ := q.Pop("m"); next.Value != 1 {
		t.Errorf("popped %d, want the key's second", next.Value)
	}
}

func TestModelsTakeTurns(t *testing.T) {
	q := schedule.New[int]()
	for i, model := range []string{"a", "b", "c"} {
		it := item(task.Bulk, "t", 0, i)
		it.Model = model
		q.Push(it)
	}
	first := map[string]int{}
	for range 9 {
		first[q.Models()[0]]++
	}
	if first["a"] != 3 || first["b"] != 3 || first["c"] != 3 {
		t.Errorf("first in turn: %v", first)
	}
	q.Pop("b")
	if got := q.Models(); len(got) != 2 {
		t.Errorf("models with something to run: %v", got)
	}
}

// queueMachine checks a Queue against what any fair queue must keep.
type queueMachine struct {
	q       *schedule.Queue[int]
	next    int
	waiting map[int]schedule.Item[int]
	out     map[int]schedule.Item[int] // popped, with a key held
}

func (m *queueMachine) Push(rt *rapid.T) {
	m.next++
	it := schedule.Item[int]{
		Model:    rapid.SampledFrom([]string{"m1", "m2"}).Draw(rt, "model"),
		Class:    rapid.SampledFrom(task.Classes()).Draw(rt, "class"),
		Tenant:   rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "tenant"),
		Key:      rapid.SampledFrom([]string{"", "", "k1", "k2"}).Draw(rt, "key"),
		Deadline: int64(rapid.IntRange(0, 5).Draw(rt, "deadline")),
		Cost:     rapid.IntRange(0, 5000).Draw(rt, "cost"),
		Value:    m.next,
	}
	m.waiting[m.next] = it
	m.q.Push(it)
}

func sameKey(a, b schedule.Item[int]) bool {
	return a.Key != "" && a.Class == b.Class && a.Tenant == b.Tenant && a.Key == b.Key
}

func (m *queueMachine) blocked(it schedule.Item[int]) bool {
	for _, o := range m.out {
		if sameKey(o, it) {
			return true
		}
	}
	return false
}

// first reports whether no earlier task of its key waits.
func (m *queueMachine) first(it schedule.Item[int]) bool {
	for _, w := range m.waiting {
		if sameKey(w, it) && w.Value < it.Value {
			return false
		}
	}
	return true
}

func (m *queueMachine) Pop(rt *rapid.T) {
	model := rapid.SampledFrom([]string{"m1", "m2"}).Draw(rt, "model")
	it, ok := m.q.Pop(model)
	if !ok {
		for _, w := range m.waiting {
			if w.Model == model && !m.blocked(w) && m.first(w) {
				rt.Fatalf("nothing popped, but %+v may run", w)
			}
		}
		return
	}
	if _, known := m.waiting[it.Value]; !known || m.blocked(it) || it.Model != model {
		rt.Fatalf("popped %+v: known %t, key held %t", it, known, m.blocked(it))
	}
	for _, w := range m.waiting {
		if sameKey(w, it) && w.Value < it.Value {
			rt.Fatalf("popped %+v before %+v of the same key", it, w)
		}
		if it.Key == "" && w.Key == "" && w.Model == it.Model && w.Class == it.Class && w.Tenant == it.Tenant && w.Deadline < it.Deadline {
			rt.Fatalf("popped %+v before the more urgent %+v", it, w)
		}
	}
	delete(m.waiting, it.Value)
	if it.Key != "" {
		m.out[it.Value] = it
	}
}

func (m *queueMachine) Done(rt *rapid.T) {
	for v, it := range m.out {
		delete(m.out, v)
		m.q.Done(it)
		return
	}
	rt.Skip("nothing is out")
}

func (m *queueMachine) Check(rt *rapid.T) {
	if m.q.Len() != len(m.waiting) {
		rt.Fatalf("Len %d, want %d", m.q.Len(), len(m.waiting))
	}
}

func TestQueueKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &queueMachine{q: schedule.New[int](), waiting: map[int]schedule.Item[int]{}, out: map[int]schedule.Item[int]{}}
		rt.Repeat(rapid.StateMachineActions(m))
	})
}
