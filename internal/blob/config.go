package blob

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/penstock/penstock/internal/config"
)

// Config says where blobs are kept; every service must be told the same. Without
// a URL there is no store.
type Config struct {
	URL       string        `koanf:"url" usage:"where large payloads and results are kept: file:///dir on a volume that all services share, or s3://bucket/prefix?region=…&endpoint=…; empty: nowhere, they travel in the records"`
	AccessKey string        `koanf:"access_key" usage:"S3 access key; empty: AWS_ACCESS_KEY_ID or the machine's role"`
	SecretKey config.Secret `koanf:"secret_key" usage:"S3 secret key"`
	MaxBytes  config.Bytes  `koanf:"max_bytes" usage:"largest payload or result that is kept there"`
}

// DefaultConfig is no store.
func DefaultConfig() Config { return Config{MaxBytes: 64 << 20} }

// maxBytes is what a service can be asked to hold: payloads and results are in
// memory while they are worked with.
const maxBytes = 1 << 30

// Validate returns every fault at once.
func (c Config) Validate() error {
	if c.URL == "" {
		return nil
	}
	_, err := c.keeper()
	if c.MaxBytes < 1<<20 || c.MaxBytes > maxBytes {
		err = errors.Join(err, fmt.Errorf("max_bytes: must be 1MiB to %s", config.Bytes(maxBytes)))
	}
	return err
}

// New returns the store of a configuration with a URL. It does no I/O: Check
// says whether the store answers.
func New(c Config, p Params) (*Store, error) {
	k, err := c.keeper()
	if err != nil {
		return nil, err
	}
	return &Store{k: k, m: newMetrics(p)}, nil
}

func (c Config) keeper() (keeper, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, errors.New("url: not a URL") // what it is may hold a secret
	}
	if u.User != nil {
		return nil, errors.New("url: give keys by access_key and secret_key, not in the URL")
	}
	switch u.Scheme {
	case "file":
		return dirOf(u)
	case "s3":
		return c.bucketOf(u)
	}
	return nil, fmt.Errorf("url: want file:///directory or s3://bucket/prefix, got the scheme %q", u.Scheme)
}

func dirOf(u *url.URL) (*dir, error) {
	path := filepath.FromSlash(u.Path)
	if u.Host != "" || !filepath.IsAbs(path) || u.RawQuery != "" {
		return nil, errors.New("url: want file:// and an absolute path, as in file:///var/lib/penstock/blobs")
	}
	return &dir{root: filepath.Clean(path)}, nil
}

func (c Config) bucketOf(u *url.URL) (*bucket, error) {
	q := u.Query()
	for name := range q {
		switch name {
		case "endpoint", "region", "path_style":
		default:
			return nil, fmt.Errorf("url: s3 has endpoint, region and path_style, not %q", name)
		}
	}
	if u.Host == "" {
		return nil, errors.New("url: want s3://bucket/prefix")
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return nil, errors.New("access_key, secret_key: give both or neither")
	}
	endpoint, err := endpointOf(q.Get("endpoint"))
	if err != nil {
		return nil, err
	}
	opts := &minio.Options{
		Creds: c.credentials(), Secure: endpoint.Scheme == "https", Region: q.Get("region"),
		Transport: transport(), MaxRetries: s3Tries,
	}
	if pathStyle, err := strconv.ParseBool(q.Get("path_style")); err == nil && pathStyle {
		opts.BucketLookup = minio.BucketLookupPath
	}
	cl, err := minio.New(endpoint.Host, opts)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	b := &bucket{cl: cl, name: u.Host, prefix: strings.Trim(u.Path, "/")}
	if b.prefix != "" {
		b.prefix += "/"
	}
	return b, nil
}

// endpointOf is Amazon's unless the operator has another.
func endpointOf(text string) (*url.URL, error) {
	if text == "" {
		return &url.URL{Scheme: "https", Host: "s3.amazonaws.com"}, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return nil, errors.New("url: endpoint must be http:// or https:// and host:port")
	}
	return u, nil
}

func (c Config) credentials() *credentials.Credentials {
	if c.AccessKey != "" {
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey.Reveal(), "")
	}
	return credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.IAM{}})
}

// s3Tries of one request: callers retry too, and know how long it is worth it.
const s3Tries = 3

// transport fails before a caller's patience ends, where the server is silent.
func transport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	t.ResponseHeaderTimeout = 10 * time.Second
	t.DisableCompression = true // sizes must be those of the content
	return t
}
