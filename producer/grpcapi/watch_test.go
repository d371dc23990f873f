package grpcapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/penstock/penstock/internal/rpc"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/grpcapi"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// watch opens a watch as acme.
func (b *bundle) watch(ctx context.Context, id task.ID, after string) grpc.ServerStreamingClient[rpc.WatchResponse] {
	b.t.Helper()
	stream, err := b.tasks.Watch(ctx, &rpc.WatchRequest{TaskId: string(id), After: after})
	if err != nil {
		b.t.Fatal(err)
	}
	return stream
}

// read returns up to n events, or all for n < 0, and how the call ended.
func read(stream grpc.ServerStreamingClient[rpc.WatchResponse], n int) (lines []string, err error) {
	for ; n != 0; n-- {
		r, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return lines, err
		}
		e := r.Event
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Id, e.Type, e.Text)))
	}
	return lines, nil
}

func TestAWatchHasEveryEventOnceAndEndsWithTheTask(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	id, f := b.id(), fence(t, 3)
	b.say(id, f, 1, 2)
	stream := b.watch(b.as("acme"), id, "")
	if got, err := read(stream, 2); err != nil || got[0] != "0-1 queued" {
		t.Fatalf("%v, %v", got, err)
	}
	b.say(id, f, 3, 4)
	b.end(id, task.Succeeded)
	got, err := read(stream, -1)
	want := []string{f.String() + "-1 delta 1", f.String() + "-2 delta 2", f.String() + "-3 delta 3", f.String() + "-4 delta 4", event.TerminalID(0).String() + " succeeded"}
	if len(got) < 5 {
		t.Fatalf("%v, %v", got, err)
	}
	if diff := cmp.Diff(want, got[len(got)-5:]); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestAWatchResumesWhereItWasCut(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	id, f := b.id(), fence(t, 1)
	b.say(id, f, 1, 200)
	b.end(id, task.Succeeded)
	whole, err := read(b.watch(b.as("acme"), id, ""), -1)
	if err != nil || len(whole) < 201 {
		t.Fatalf("%d events, %v", len(whole), err)
	}
	for range 10 {
		var got []string
		after := ""
		for !strings.HasPrefix(after, event.TerminalID(0).String()) {
			ctx, cut := context.WithCancel(b.as("acme"))
			part, err := read(b.watch(ctx, id, after), 1+rand.IntN(60))
			if cut(); err != nil {
				t.Fatal(err)
			}
			got = append(got, part...)
			after, _, _ = strings.Cut(got[len(got)-1], " ")
		}
		if diff := cmp.Diff(whole, got); diff != "" {
			t.Fatal(diff)
		}
	}
	if got, err := read(b.watch(b.as("acme"), id, event.TerminalID(0).String()), -1); len(got) > 0 || err != nil {
		t.Errorf("who has seen the end gets %v, %v", got, err)
	}
}

func TestADrainAsksWatchersToComeBack(t *testing.T) {
	b := setup(t, grpcapi.Params{DrainSpread: time.Millisecond}, admit.Params{})
	id := b.id()
	stream := b.watch(b.as("acme"), id, "")
	if _, err := read(stream, 1); err != nil {
		t.Fatal(err)
	}
	b.server.Drain()
	r, err := stream.Recv()
	if err != nil || r.Event.Type != "reconnect" || r.Event.Id != "" || r.Event.Reason != "drain" || r.Event.RetryAfter.AsDuration() < time.Second {
		t.Errorf("%v, %v", r, err)
	}
	_, err = stream.Recv()
	st := status.Convert(err)
	asked := false
	for _, d := range st.Details() {
		if _, ok := d.(*errdetails.RetryInfo); ok {
			asked = true
		}
	}
	if st.Code() != codes.Unavailable || !asked {
		t.Errorf("a watch that was cut short ends with %v: a clean end would read as the task's", err)
	}
	if err := <-b.served; err != nil {
		t.Errorf("the drain left something: %v", err)
	}
	b.served <- nil
}

func TestACallThatOutlastsTheGraceIsCut(t *testing.T) {
	b := setup(t, grpcapi.Params{DrainGrace: 50 * time.Millisecond, DrainSpread: time.Hour}, admit.Params{})
	stream, err := b.conn.NewStream(b.as("acme"), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(reflectionv1.ServerReflectionResponse)); err != nil {
		t.Fatal(err)
	}
	b.server.Drain()
	if err := <-b.served; err == nil || !strings.Contains(err.Error(), "were cut") {
		t.Errorf("%v", err)
	}
	b.served <- nil
}

func TestADrainDoesNotWaitForWhoWatchesHealth(t *testing.T) {
	b := setup(t, grpcapi.Params{DrainGrace: time.Minute}, admit.Params{})
	stream, err := grpc_health_v1.NewHealthClient(b.conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Recv(); err != nil || got.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", got, err)
	}
	began := time.Now()
	b.server.Drain()
	if err := <-b.served; err != nil || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	b.served <- nil
}

func TestARevokedKeyLosesItsWatch(t *testing.T) {
	b := setup(t, grpcapi.Params{Recheck: 5 * time.Millisecond}, admit.Params{})
	stream := b.watch(b.as("acme"), b.id(), "")
	if _, err := read(stream, 1); err != nil {
		t.Fatal(err)
	}
	b.keys.revoke()
	if _, err := read(stream, -1); status.Code(err) != codes.Unauthenticated {
		t.Errorf("%v", err)
	}
}

func TestAWatcherWhoDoesNotReadIsCut(t *testing.T) {
	b := setup(t, grpcapi.Params{WriteTimeout: 20 * time.Millisecond}, admit.Params{})
	id, f := b.id(), fence(t, 1)
	b.say(id, f, 1, 1)
	stream := b.watch(b.as("acme"), id, "")
	for seq := uint64(2); seq < 6000; seq += 500 {
		b.say(id, f, seq, seq+499) // more than the windows of a call hold
	}
	for deadline := time.After(10 * time.Second); ; {
		families, err := b.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		open := -1.0
		for _, family := range families {
			if family.GetName() == "penstock_producer_rpc_watchers" {
				open = family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		if open == 0 {
			break
		}
		select {
		case <-deadline:
			t.Fatal("it still holds its place")
		case <-time.After(5 * time.Millisecond):
		}
	}
	got, err := read(stream, -1)
	if status.Code(err) != codes.Unavailable || len(got) == 0 {
		t.Errorf("%d events, then %v", len(got), err)
	}
}

func TestWatchesAreBounded(t *testing.T) {
	b := setup(t, grpcapi.Params{PerTenant: 1}, admit.Params{})
	if _, err := read(b.watch(b.as("acme"), b.id(), ""), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := read(b.watch(b.as("acme"), b.id(), ""), -1); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
}

func TestACancelIsDurableAndAnswersTheEnd(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	open, ended := b.id(), b.id()
	got, err := b.tasks.Cancel(b.as("acme"), &rpc.CancelRequest{TaskId: string(open)})
	if err != nil || got.Ended || len(b.ends) != 1 || b.ends[0].TaskID != open || b.ends[0].Status != task.Cancelled {
		t.Errorf("%v, %v, %v", got, err, b.ends)
	}
	b.end(ended, task.Succeeded)
	got, err = b.tasks.Cancel(b.as("acme"), &rpc.CancelRequest{TaskId: string(ended)})
	if err != nil || !got.Ended || got.Task.Status != "succeeded" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestHealthAndReflectionNeedNoKey(t *testing.T) {
	b := setup(t, grpcapi.Params{}, admit.Params{})
	health := grpc_health_v1.NewHealthClient(b.conn)
	for _, service := range []string{"", "penstock.v1.Inference", "penstock.v1.MessageRouter"} {
		got, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || got.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", service, got, err)
		}
	}
	stream, err := reflectionv1.NewServerReflectionClient(b.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil || !strings.Contains(got.String(), "penstock.v1.Inference") || !strings.Contains(got.String(), "penstock.v1.MessageRouter") {
		t.Errorf("%v, %v", got, err)
	}
}
