package blob_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/schema/task"
)

func TestAnS3ServiceThatIsAwayIsUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := blob.Config{URL: "s3://blobs?region=us-east-1&endpoint=http://" + l.Addr().String(), AccessKey: "key", SecretKey: "secret"}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := blob.New(c, blob.Params{Service: "test", Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), strings.NewReader("payload"), 10); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("put: %v, want ErrUnavailable", err)
	}
	hash := strings.Repeat("ab", 32)
	_, err = s.Open(t.Context(), task.Ref{Key: "2026-03-14/ab/" + hash, SHA256: hash, Bytes: 1})
	if !errors.Is(err, blob.ErrUnavailable) || errors.Is(err, blob.ErrNotFound) {
		t.Errorf("open: %v, want ErrUnavailable", err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("check: %v, want ErrUnavailable", err)
	}
}
