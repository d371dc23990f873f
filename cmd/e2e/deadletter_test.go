//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/backend/simulated"
	"github.com/penstock/penstock/worker/redrive"
)

func TestDeadLettersAndRedrive(t *testing.T) {
	p := params(t)
	p.Env = []string{"PENSTOCK_RETRY_BASE=100ms", "PENSTOCK_RETRY_CAP=400ms"} // so that tasks die within seconds
	s := start(t, p)
	setFault(t, s, simulated.Fault{Match: "poisoned", Status: http.StatusInternalServerError})

	viaAPI, viaCLI := killOne(t, s, "poisoned for the API"), killOne(t, s, "poisoned for the CLI")
	neighbours := submitMany(t, s, 20, func(i int) api.SubmitRequest { return prompt(fmt.Sprint("healthy ", i)) })
	for id, got := range waitAll(t, s, neighbours) {
		if got.Status != task.Succeeded || len(got.Attempts) != 1 {
			t.Errorf("healthy task %s is %s after %d tries", id, got.Status, len(got.Attempts))
		}
	}
	t.Run("the dead letter holds the original bytes and its lineage", func(t *testing.T) { untouched(t, viaAPI) })

	clearFaults(t, s)
	t.Run("the admin API puts it back to work", func(t *testing.T) {
		job, err := s.Client().Redrive(t.Context(), redrive.Request{IDs: []string{string(viaAPI)}})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, "the job is completed", func() bool {
			job, err = s.Client().RedriveJob(t.Context(), job.ID)
			return err == nil && job.State == redrive.JobCompleted
		})
		if job.Redriven != 1 {
			t.Fatalf("the job: %+v", job)
		}
		revived(t, s, viaAPI)
	})
	t.Run("penstock dlt puts it back to work", func(t *testing.T) {
		out := cli(t, s, "dlt", "ls", "-o", "json")
		if !bytes.Contains(out, []byte(viaCLI)) {
			t.Fatalf("dlt ls does not show %s: %s", viaCLI, out)
		}
		cli(t, s, "dlt", "redrive", string(viaCLI), "--yes")
		revived(t, s, viaCLI)
	})
}

// killOne submits a task that the fault switch fails, and waits for its death.
func killOne(t *testing.T, s *system.System, text string) task.ID {
	t.Helper()
	accepted, err := s.Client().Submit(t.Context(), prompt(text), "")
	if err != nil {
		t.Fatal(err)
	}
	got := waitAll(t, s, []task.ID{accepted.TaskID})[accepted.TaskID]
	if got.Status != task.Dead || got.Error == nil || got.Error.Code != fault.Unavailable || len(got.Attempts) != 5 {
		t.Fatalf("task is %s with error %+v after %d tries, want dead after 5", got.Status, got.Error, len(got.Attempts))
	}
	eventually(t, 20*time.Second, "the index has the dead letter", func() bool {
		_, err := s.Client().DeadLetter(t.Context(), accepted.TaskID)
		return err == nil
	})
	return accepted.TaskID
}

// untouched compares a dead letter with the task record it was.
func untouched(t *testing.T, id task.ID) {
	t.Helper()
	var letter, original *wire.Record
	for _, r := range readAll(t, topic.DeadLetters) {
		rec := tasktopic.FromKgo(r)
		if name, _ := rec.Get(wire.HeaderDLTask); name == string(id) {
			letter = &rec
		}
	}
	for _, r := range readAll(t, topic.Tasks("default", task.Standard)) {
		if string(r.Key) == string(id) {
			rec := tasktopic.FromKgo(r)
			original = &rec
			break
		}
	}
	if letter == nil || original == nil {
		t.Fatalf("letter found: %v, original found: %v", letter != nil, original != nil)
	}
	if !bytes.Equal(letter.Value, original.Value) || !bytes.Equal(letter.Key, original.Key) {
		t.Error("key or value of the dead letter are not the original bytes")
	}
	lineage, err := wire.DecodeDeadLetter(*letter)
	if err != nil {
		t.Fatal(err)
	}
	if lineage.Disposition != deadletter.Exhausted || lineage.Attempts != 5 || len(lineage.History) != 5 || lineage.Origin.Topic == "" {
		t.Errorf("lineage: %+v", lineage)
	}
}

// revived waits until a task has succeeded in generation 1, and checks that the
// log tells one story: dead, reopened, succeeded.
func revived(t *testing.T, s *system.System, id task.ID) {
	t.Helper()
	eventually(t, 30*time.Second, "the task has succeeded in generation 1", func() bool {
		got, err := s.Client().Task(t.Context(), id, 0)
		return err == nil && got.Generation == 1 && got.Status == task.Succeeded
	})
	var story []task.Status
	for _, w := range outcomes(t)[id].Wins {
		story = append(story, w.Status)
	}
	if fmt.Sprint(story) != fmt.Sprint([]task.Status{task.Dead, terminal.Reopened, task.Succeeded}) {
		t.Errorf("the log says %v", story)
	}
}

func setFault(t *testing.T, s *system.System, f simulated.Fault) {
	t.Helper()
	body, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	callFaults(t, s, http.MethodPost, body)
}

func clearFaults(t *testing.T, s *system.System) {
	t.Helper()
	callFaults(t, s, http.MethodDelete, nil)
}

func callFaults(t *testing.T, s *system.System, method string, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.Simulators[0].URL+"/sim/faults", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("%s /sim/faults: %s", method, res.Status)
	}
}

// cli runs the real binary against a system.
func cli(t *testing.T, s *system.System, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(env.bin, "penstock"), args...)
	cmd.Env = append(cmd.Environ(),
		"PENSTOCK_API="+s.Producers[0].URL, "PENSTOCK_RESULTS="+s.Results[0].URL, "PENSTOCK_ADMIN="+s.Admin(s.Workers[0]))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("penstock %v: %v\n%s%s", args, err, out, errs.Bytes())
	}
	return out
}
