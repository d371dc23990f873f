//go:build integration

package blob_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/blob/blobtest"
)

// Keys of the server that scripts/s3.sh starts.
const (
	testAccessKey = "penstock-test"
	testSecretKey = "penstock-test-secret"
)

// realS3 is the bucket named by PENSTOCK_TEST_S3, with a prefix of our own.
func realS3(t *testing.T) *url.URL {
	t.Helper()
	text := os.Getenv("PENSTOCK_TEST_S3")
	if text == "" {
		t.Skip("PENSTOCK_TEST_S3 is not set: run make test")
	}
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + rand.Text()
	return u
}

func openS3(t *testing.T, u *url.URL) *blob.Store {
	t.Helper()
	s, err := blob.New(blob.Config{URL: u.String(), AccessKey: testAccessKey, SecretKey: testSecretKey},
		blob.Params{Service: "test", Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestS3(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blobtest.World {
		u := realS3(t)
		cl, err := minio.New(strings.TrimPrefix(u.Query().Get("endpoint"), "http://"), &minio.Options{
			Creds: credentials.NewStaticV4(testAccessKey, testSecretKey, ""), Region: u.Query().Get("region"),
		})
		if err != nil {
			t.Fatal(err)
		}
		return blobtest.World{Store: openS3(t, u), Plant: func(key string, content []byte) {
			_, err := cl.PutObject(t.Context(), u.Host, strings.Trim(u.Path, "/")+"/"+key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
			if err != nil {
				t.Fatal(err)
			}
		}}
	})
}

func TestABucketThatIsNotThereIsNoLostBlob(t *testing.T) {
	u := realS3(t)
	ref, err := openS3(t, u).Put(t.Context(), strings.NewReader("payload"), 10)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "penstock-no-such-bucket"
	s := openS3(t, u)
	if _, err := s.Open(t.Context(), ref); !errors.Is(err, blob.ErrUnavailable) || errors.Is(err, blob.ErrNotFound) {
		t.Errorf("open: %v, want ErrUnavailable alone", err)
	}
	if _, err := s.Put(t.Context(), strings.NewReader("payload"), 10); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("put: %v, want ErrUnavailable", err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("check: %v, want ErrUnavailable", err)
	}
}

func TestWrongKeysAreTheStoresTrouble(t *testing.T) {
	u := realS3(t)
	s, err := blob.New(blob.Config{URL: u.String(), AccessKey: testAccessKey, SecretKey: "wrong"},
		blob.Params{Service: "test", Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), strings.NewReader("payload"), 10); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("put: %v, want ErrUnavailable", err)
	}
}
