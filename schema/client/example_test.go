package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/client"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// demo is a Penstock that answers everything with "deep blue", and whose stream
// breaks once in the middle.
func demo() *httptest.Server {
	end := &terminal.Terminal{TaskID: "task_1", Status: task.Succeeded, Output: &task.Output{Text: "deep blue"}}
	write := func(w http.ResponseWriter, res *http.Response) {
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/inference", func(w http.ResponseWriter, _ *http.Request) { write(w, data(202, api.NewAccepted("task_1"))) })
	mux.HandleFunc("GET /v1/tasks/{id}", func(w http.ResponseWriter, _ *http.Request) { write(w, data(200, api.OfTerminal(end, 0))) })
	mux.HandleFunc("GET /v1/tasks/{id}/events", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Last-Event-ID") == "" {
			fmt.Fprint(w, sse(delta("task_1", 1, "deep ")))
			return
		}
		fmt.Fprint(w, sse(delta("task_1", 2, "blue")), sse(event.OfTerminal(end, 0)))
	})
	return httptest.NewServer(mux)
}

// Submit a task, and come back for its result.
func Example() {
	srv := demo()
	defer srv.Close()
	ctx := context.Background()
	penstock, err := client.New(client.Config{API: srv.URL, Key: "sk-…"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer penstock.Close()
	// The same key and request are the same task, from any process, for a day.
	accepted, err := penstock.Submit(ctx, api.SubmitRequest{
		Model: "sim-chat", Payload: task.Payload{Text: "What colour is the sea?"},
	}, "question-17")
	if err != nil {
		fmt.Println(err)
		return
	}
	done, err := penstock.Wait(ctx, accepted.TaskID)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(done.Status, done.Output.Text)
	// Output: succeeded deep blue
}

// Show an answer while it is made. The stream of this server breaks in the
// middle, which the watcher never sees.
func ExampleClient_Watch() {
	srv := demo()
	defer srv.Close()
	penstock, err := client.New(client.Config{API: srv.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer penstock.Close()
	var text client.Text
	for e, err := range penstock.Watch(context.Background(), "task_1", event.ID{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		piece, anew := text.Add(e)
		if anew {
			fmt.Print("\n(begun anew) ")
		}
		fmt.Print(piece)
	}
	fmt.Println()
	// Output: deep blue
}
