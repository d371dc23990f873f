package blob_test

import (
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/blob"
)

func TestAConfigurationIsCheckedBeforeItIsUsed(t *testing.T) {
	for _, c := range []struct{ name, url, access, secret, says string }{
		{"nothing", "", "", "", ""},
		{"a directory", "file:///var/lib/penstock/blobs", "", "", ""},
		{"a bucket", "s3://blobs", "", "", ""},
		{"a bucket elsewhere", "s3://blobs/pre/fix?endpoint=http://127.0.0.1:9000&region=us-east-1&path_style=true", "key", "secret", ""},
		{"a relative directory", "file://blobs", "", "", "absolute path"},
		{"a bare path", "/var/lib/blobs", "", "", "scheme"},
		{"another scheme", "gs://blobs", "", "", `"gs"`},
		{"no bucket", "s3:///prefix", "", "", "s3://bucket/prefix"},
		{"a misspelt option", "s3://blobs?endpiont=http://x:1", "", "", "endpiont"},
		{"an endpoint without a scheme", "s3://blobs?endpoint=minio:9000", "", "", "endpoint must be"},
		{"half of a key", "s3://blobs", "key", "", "both or neither"},
		{"a key in the URL", "s3://key:hunter2@blobs", "", "", "access_key and secret_key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := blob.DefaultConfig()
			cfg.URL, cfg.AccessKey, cfg.SecretKey = c.url, c.access, "hunter2"
			if c.secret == "" {
				cfg.SecretKey = ""
			}
			err := cfg.Validate()
			switch {
			case c.says == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2")):
				t.Errorf("got %v, want it to say %q and no secret", err, c.says)
			}
		})
	}
	small := blob.DefaultConfig()
	small.URL, small.MaxBytes = "file:///blobs", 1
	if err := small.Validate(); err == nil || !strings.Contains(err.Error(), "max_bytes") {
		t.Errorf("a limit of one byte: %v", err)
	}
}
