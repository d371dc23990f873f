package grpcapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/penstock/penstock/internal/rpc"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/grpcapi"
	"github.com/penstock/penstock/schema/task"
)

func text(s string) *rpc.Payload { return &rpc.Payload{Content: &rpc.Payload_Text{Text: s}} }

func structOf(t *testing.T, fields map[string]any) *structpb.Struct {
	t.Helper()
	out, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestASubmittedTaskIsWhatTheRequestSays(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	var header metadata.MD
	got, err := b.tasks.Submit(b.as("acme", "x-request-id", "req-7"), &rpc.SubmitRequest{
		Model: "sim-chat", Payload: text("hello"), Params: structOf(t, map[string]any{"max_tokens": 64, "temperature": 0.2}),
		Class: "interactive", Source: "iot", SessionId: "s1", OrderingKey: "o1", Timeout: durationpb.New(90 * time.Second),
		Labels: map[string]string{"team": "a"}, Stream: true,
	}, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != "queued" || got.StatusUrl != "/v1/tasks/"+got.TaskId || got.Task != nil || header.Get("x-request-id")[0] != "req-7" {
		t.Errorf("%v, %v", got, header)
	}
	all := b.published()
	if len(all) != 1 {
		t.Fatalf("%d tasks", len(all))
	}
	in := all[0]
	if string(in.ID) != got.TaskId || in.Tenant != "acme" || in.Payload.Text != "hello" || in.Class != task.Interactive || in.Source != task.SourceIOT ||
		in.SessionID != "s1" || in.OrderingKey != "o1" || in.Labels["team"] != "a" || !in.Stream || in.Params.Int("max_tokens", 0) != 64 ||
		string(in.Params["temperature"]) != "0.2" || in.Deadline.Sub(in.Timestamp) != 90*time.Second {
		t.Errorf("%+v", in)
	}
}

func TestMessagesAndInputsAreTheJSONThatHTTPTakes(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	messages, err := structpb.NewList([]any{map[string]any{"role": "user", "content": "hi"}})
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := structpb.NewList([]any{"a", []any{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*rpc.SubmitRequest{
		{Model: "sim-chat", Payload: &rpc.Payload{Content: &rpc.Payload_Messages{Messages: messages}}},
		{Model: "sim-embed", Payload: &rpc.Payload{Content: &rpc.Payload_Inputs{Inputs: inputs}}},
	} {
		if _, err := b.tasks.Submit(b.as("acme"), r); err != nil {
			t.Fatal(err)
		}
	}
	all := b.published()
	squeeze := func(raw []byte) string { return strings.ReplaceAll(string(raw), " ", "") }
	if all[0].Kind != task.Chat || squeeze(all[0].Payload.Messages) != `[{"content":"hi","role":"user"}]` {
		t.Errorf("%s %s", all[0].Kind, all[0].Payload.Messages)
	}
	if all[1].Kind != task.Embedding || len(all[1].Payload.Inputs) != 2 || squeeze(all[1].Payload.Inputs[1]) != "[1,2]" {
		t.Errorf("%s %s", all[1].Kind, all[1].Payload.Inputs)
	}
}

func TestOneKeyAndRequestIsOneTask(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	submit := func(key, said string, wait time.Duration) string {
		t.Helper()
		r := &rpc.SubmitRequest{Model: "sim-chat", Payload: text(said), Labels: map[string]string{"a": "1", "b": "2"}}
		if wait > 0 {
			r.Wait = durationpb.New(wait)
		}
		got, err := b.tasks.Submit(b.as("acme", "idempotency-key", key), r)
		if err != nil {
			t.Fatal(err)
		}
		return got.TaskId
	}
	first := submit("k1", "hello", 0)
	for range 5 { // protobuf's JSON is not the same twice
		if again := submit("k1", "hello", time.Millisecond); again != first {
			t.Errorf("%s and %s", first, again)
		}
	}
	if submit("k2", "hello", 0) == first || submit("k1", "other", 0) == first {
		t.Error("another key, or another request, is another task")
	}
}

func TestASessionMayRemember(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	if _, err := b.tasks.Submit(b.as("acme"), &rpc.SubmitRequest{Model: "sim-chat", Payload: text("hello"), SessionId: "s1", Memory: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.router.ForwardRequest(b.as("acme"), &rpc.ForwardRequestRequest{SessionId: "s1", InputText: "hello", Memory: true}); err != nil {
		t.Fatal(err)
	}
	for _, in := range b.published() {
		if !in.Memory || in.OrderingKey != "session.s1" || string(in.Payload.Messages) != `[{"role":"user","content":"hello"}]` {
			t.Errorf("%+v", in)
		}
	}
}

func TestAMessageFindsItsModel(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	r := &rpc.ForwardRequestRequest{
		UserId: "u7", SessionId: "s1", InputText: "where is my invoice?", MessageId: "m-1", Context: structOf(t, map[string]any{"page": "billing"}),
		Webhook: &rpc.Webhook{Url: "https://example.com/hook", Events: []string{"task.dead"}},
	}
	got, err := b.router.ForwardRequest(b.as("acme"), r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.router.ForwardRequest(b.as("acme"), r)
	if err != nil || again.TaskId != got.TaskId {
		t.Errorf("the message's id is its key: %v, %v", again, err)
	}
	in := b.published()[0]
	if in.Model != "sim-chat" || in.SessionID != "s1" || in.Payload.Text != "where is my invoice?" || in.Source != task.SourceAPI ||
		!strings.Contains(string(in.Payload.Context), "billing") {
		t.Errorf("%+v", in)
	}
	if diff := cmp.Diff(&task.Webhook{URL: "https://example.com/hook", Events: []string{"task.dead"}}, in.Webhook); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"user_id": "u7", "message_id": "m-1"}, in.Labels); diff != "" {
		t.Error(diff)
	}
}

func TestACallerWhoWaitsGetsTheResult(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	ctx := b.as("acme", "idempotency-key", "w1")
	first, err := b.tasks.Submit(ctx, &rpc.SubmitRequest{Model: "sim-chat", Payload: text("hello"), Wait: durationpb.New(10 * time.Millisecond)})
	if err != nil || first.Status != "queued" || first.Task != nil {
		t.Fatalf("%v, %v", first, err)
	}
	b.end(task.ID(first.TaskId), task.Succeeded)
	got, err := b.tasks.Submit(ctx, &rpc.SubmitRequest{Model: "sim-chat", Payload: text("hello"), Wait: durationpb.New(time.Minute)})
	if err != nil || got.TaskId != first.TaskId || got.Status != "succeeded" || got.GetTask().GetOutput().GetText() != "all of it" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestARefusalSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	submit := func(r *rpc.SubmitRequest, key string, more ...string) func(*bundle) error {
		return func(b *bundle) error {
			_, err := b.tasks.Submit(b.as(key, more...), r)
			return err
		}
	}
	good := &rpc.SubmitRequest{Model: "sim-chat", Payload: text("a")}
	deep := any("x")
	for range 70 {
		deep = []any{deep}
	}
	for name, tc := range map[string]struct {
		do            func(*bundle) error
		code          codes.Code
		reason, param string
		retry         bool
		kafka         error
	}{
		"nobody":          {do: submit(good, ""), code: codes.Unauthenticated, reason: "unauthorized"},
		"a missing scope": {do: submit(good, "acme:read"), code: codes.PermissionDenied, reason: "forbidden"},
		"no payload":      {do: submit(&rpc.SubmitRequest{Model: "sim-chat"}, "acme"), code: codes.InvalidArgument, reason: "malformed", param: "payload"},
		"an unknown model": {
			do: submit(&rpc.SubmitRequest{Model: "gpt-9", Payload: text("a")}, "acme"), code: codes.NotFound, reason: "not_found", param: "model",
		},
		"an unknown class": {
			do: submit(&rpc.SubmitRequest{Model: "sim-chat", Payload: text("a"), Class: "vip"}, "acme"), code: codes.InvalidArgument, reason: "malformed", param: "class",
		},
		"a bad key": {do: submit(good, "acme", "idempotency-key", "a b"), code: codes.InvalidArgument, reason: "malformed", param: "Idempotency-Key"},
		"a long label": {
			do:   submit(&rpc.SubmitRequest{Model: "sim-chat", Payload: text("a"), Labels: map[string]string{"a": strings.Repeat("x", 257)}}, "acme"),
			code: codes.InvalidArgument, reason: "too_large", param: "labels.a",
		},
		"a deep payload": {
			do:   submit(&rpc.SubmitRequest{Model: "sim-chat", Payload: text("a"), Params: structOf(t, map[string]any{"x": deep})}, "acme"),
			code: codes.InvalidArgument, reason: "malformed",
		},
		"a negative wait": {
			do:   submit(&rpc.SubmitRequest{Model: "sim-chat", Payload: text("a"), Wait: durationpb.New(-time.Second)}, "acme"),
			code: codes.InvalidArgument, reason: "malformed", param: "wait",
		},
		"a full buffer":      {do: submit(good, "acme"), kafka: tasktopic.ErrFull, code: codes.Unavailable, reason: "unavailable", retry: true},
		"an unknown outcome": {do: submit(good, "acme"), kafka: tasktopic.ErrUnknown, code: codes.Unavailable, reason: "unavailable", retry: true},
		"an empty message": {
			do: func(b *bundle) error {
				_, err := b.router.ForwardRequest(b.as("acme"), &rpc.ForwardRequestRequest{UserId: "u"})
				return err
			}, code: codes.InvalidArgument, reason: "malformed", param: "input_text",
		},
		"a foreign task": {
			do: func(b *bundle) error {
				_, err := b.tasks.Get(b.as("other"), &rpc.GetRequest{TaskId: string(b.id())})
				return err
			}, code: codes.NotFound, reason: "not_found",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, grpcapi.Params{}, admit.Params{})
			b.world.err = tc.kafka
			st := status.Convert(tc.do(b))
			var reason, param string
			retry := false
			for _, d := range st.Details() {
				switch d := d.(type) {
				case *errdetails.ErrorInfo:
					reason, param = d.Reason, d.Metadata["param"]
				case *errdetails.RetryInfo:
					retry = d.RetryDelay.AsDuration() > 0
				}
			}
			if st.Code() != tc.code || reason != tc.reason || param != tc.param && tc.param != "" || retry != tc.retry || st.Message() == "" {
				t.Errorf("%s %q at %q, retry %v: %s", st.Code(), reason, param, retry, st.Message())
			}
			if len(b.published()) > 0 {
				t.Error("and yet it was published")
			}
		})
	}
}

func TestATenantOverItsRateIsThrottled(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{TasksPerSecond: 0.1, Burst: 1})
	r := &rpc.SubmitRequest{Model: "sim-chat", Payload: text("a")}
	if _, err := b.tasks.Submit(b.as("acme"), r); err != nil {
		t.Fatal(err)
	}
	if _, err := b.tasks.Submit(b.as("acme"), r); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
}

func TestAPanicIsOneCallsFault(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{}, func(d *grpcapi.Deps) { d.Cancels = nil })
	if _, err := b.tasks.Cancel(b.as("acme"), &rpc.CancelRequest{}); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "nil pointer") {
		t.Errorf("%v", err)
	}
	if _, err := b.tasks.Get(b.as("panic"), &rpc.GetRequest{}); status.Code(err) != codes.Internal {
		t.Errorf("%v", err)
	}
	if _, err := b.tasks.Submit(b.as("acme"), &rpc.SubmitRequest{Model: "sim-chat", Payload: text("a")}); err != nil {
		t.Errorf("and the server goes on: %v", err)
	}
}

func TestALargeRequestIsRefusedUnread(t *testing.T) {
	b := setup(t, grpcapi.Params{MessageLimit: 1 << 10}, admit.Params{})
	_, err := b.tasks.Submit(b.as("acme"), &rpc.SubmitRequest{Model: "sim-chat", Payload: text(strings.Repeat("x", 2<<10))})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
}
