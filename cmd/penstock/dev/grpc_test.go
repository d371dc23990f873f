package dev_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/internal/rpc"
)

// TestTheWholePipelineOverGRPC uses what a stranger has: an address, and the
// contract.
func TestTheWholePipelineOverGRPC(t *testing.T) {
	cl, s, _ := run(t, dev.DefaultConfig())
	conn, err := grpc.NewClient(s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tasks, router := rpc.NewInferenceClient(conn), rpc.NewMessageRouterClient(conn)

	t.Run("a message is answered", func(t *testing.T) {
		got, err := router.ForwardRequest(ctx, &rpc.ForwardRequestRequest{
			UserId: "u1", SessionId: "s1", InputText: "Why is the sky blue?", Wait: durationpb.New(20 * time.Second),
		})
		if err != nil || got.Status != "succeeded" || got.Task.Output.Text == "" || got.Task.Labels["user_id"] != "u1" {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("a watch that is cut resumes, and the pieces are the whole", func(t *testing.T) {
		accepted, err := tasks.Submit(ctx, &rpc.SubmitRequest{
			Model: "sim-chat", Stream: true, Payload: &rpc.Payload{Content: &rpc.Payload_Text{Text: "a story"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		pieces, whole := watchInPieces(ctx, t, tasks, accepted.TaskId, 3)
		if whole == "" || pieces != whole {
			t.Errorf("pieces %q, whole %q", pieces, whole)
		}
		got, err := tasks.Get(ctx, &rpc.GetRequest{TaskId: accepted.TaskId})
		if err != nil || got.Task.Output.Text != whole {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("one key and request are one task over HTTP and gRPC", func(t *testing.T) {
		first, err := cl.SubmitRaw(ctx, []byte(`{"payload": {"text": "once"}, "model": "sim-chat", "params": {"max_tokens": 8, "temperature": 0.2}}`), "both ways")
		if err != nil {
			t.Fatal(err)
		}
		params, err := structpb.NewStruct(map[string]any{"temperature": 0.2, "max_tokens": 8})
		if err != nil {
			t.Fatal(err)
		}
		again, err := tasks.Submit(metadata.AppendToOutgoingContext(ctx, "idempotency-key", `"both ways"`), &rpc.SubmitRequest{
			Model: "sim-chat", Payload: &rpc.Payload{Content: &rpc.Payload_Text{Text: "once"}}, Params: params,
		})
		if err != nil || again.TaskId != string(first.TaskID) {
			t.Errorf("%v and %v, %v", first, again, err)
		}
	})
	t.Run("a cancel stops a task", func(t *testing.T) {
		accepted, err := tasks.Submit(ctx, &rpc.SubmitRequest{Payload: &rpc.Payload{Content: &rpc.Payload_Text{Text: "long"}}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := tasks.Cancel(ctx, &rpc.CancelRequest{TaskId: accepted.TaskId})
		if err != nil || got.Ended && got.Task.Status != "cancelled" && got.Task.Status != "succeeded" {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("health says that it serves", func(t *testing.T) {
		got, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "penstock.v1.Inference"})
		if err != nil || got.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("reflection describes the contract", func(t *testing.T) {
		stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
		if err != nil {
			t.Fatal(err)
		}
		err = stream.Send(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "penstock.v1.Inference.Watch"},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil || len(got.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 || !strings.Contains(got.String(), "inference.proto") {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// watchInPieces hangs up after every few events, and returns the text of all
// deltas and that of the end.
func watchInPieces(ctx context.Context, t *testing.T, tasks rpc.InferenceClient, id string, few int) (pieces, whole string) {
	t.Helper()
	for after := ""; whole == ""; {
		call, hangUp := context.WithCancel(ctx)
		stream, err := tasks.Watch(call, &rpc.WatchRequest{TaskId: id, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for range few {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			after = r.Event.Id
			if r.Event.Type == "delta" {
				pieces += r.Event.Text
			}
			if r.Event.Result != nil {
				whole = r.Event.Result.Output.Text
			}
		}
		hangUp()
	}
	return pieces, whole
}
