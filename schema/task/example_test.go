package task_test

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// Any node that holds the secret can tell its own ids from invented ones,
// without asking a store.
func ExampleMinter() {
	m, err := task.NewMinter(task.Secret{Number: 1, Key: []byte("a secret of at least 16 bytes")})
	if err != nil {
		fmt.Println(err)
		return
	}
	id := m.New("acme", time.Now())
	fmt.Println("for acme:", m.Check(id, "acme"))
	fmt.Println("for another tenant:", m.Check(id, "other"))
	fmt.Println("invented:", m.Check("task_17", "acme"))
	// Output:
	// for acme: <nil>
	// for another tenant: task id not issued to this tenant
	// invented: not a task id
}

// One idempotency key and body give one id for a day, on every node.
func ExampleMinter_Keyed() {
	m, err := task.NewMinter(task.Secret{Number: 1, Key: []byte("a secret of at least 16 bytes")})
	if err != nil {
		fmt.Println(err)
		return
	}
	body := sha256.Sum256([]byte(`{"model":"sim-chat","payload":{"text":"hi"}}`))
	morning := time.Date(2026, 3, 14, 8, 0, 0, 0, time.UTC)
	id := m.Keyed("acme", "order-17", body, morning)
	fmt.Println(id)
	fmt.Println("in the evening:", m.Keyed("acme", "order-17", body, morning.Add(12*time.Hour)) == id)
	fmt.Println("the next day:", m.Keyed("acme", "order-17", body, morning.Add(24*time.Hour)) == id)
	fmt.Println(id.Time())
	// Output:
	// task_06eej948000ui6eipa8t38tsq3o4hnf467b19nog4sg5du0u
	// in the evening: true
	// the next day: false
	// 2026-03-14 00:00:00 +0000 UTC
}
