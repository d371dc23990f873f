package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/retryafter"
	"github.com/penstock/penstock/schema/webhook"
)

// sender makes one attempt.
type sender struct {
	client *http.Client
	keys   *callback.Keys
	log    *slog.Logger
}

const (
	userAgent = "Penstock-Webhook/1"
	// drainBytes of an answer are read so that its connection can serve again;
	// nothing of them is kept.
	drainBytes = 4 << 10
)

// newSender returns a sender that reaches only what the policy lets it, by no
// proxy, and follows no redirect: each would be a way around the policy.
func newSender(p Params, keys *callback.Keys, log *slog.Logger) *sender {
	dial := p.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: p.Timeout / 2, Control: p.Policy.Control()}).DialContext
	}
	return &sender{keys: keys, log: log, client: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            dial,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.RootCAs},
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    p.Timeout / 2,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 16 << 10,
			MaxConnsPerHost:        p.PerHost,
			MaxIdleConnsPerHost:    1,
			MaxIdleConns:           p.Concurrency,
			IdleConnTimeout:        30 * time.Second,
		},
	}}
}

// call is what an attempt sends.
type call struct {
	url, tenant, id string
	at              time.Time
	body            []byte
}

// answer says how an attempt went.
type answer struct {
	outcome    webhook.Outcome
	status     int           // of the answer; 0: there was none
	retryAfter time.Duration // the wait that a receiver in trouble asks for; 0: none
}

// send makes the attempt and says how it went. Its time is bounded. What the
// receiver says besides its status, and when to come again, is neither kept nor
// logged, nor is the URL, which may hold a secret.
func (s *sender) send(ctx context.Context, c call, timeout time.Duration) answer {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(c.body))
	if err == nil {
		req.Header, err = s.keys.Sign(c.tenant, c.id, c.at, c.body)
	}
	if err != nil { // the URL was checked when it was registered
		s.log.Warn("webhook cannot be called", "event_id", c.id)
		return answer{outcome: webhook.Prohibited}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", userAgent)
	res, err := s.client.Do(req)
	if err != nil {
		return answer{outcome: failureOf(ctx, err)}
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, drainBytes) // the status is the answer
	return answerOf(res)
}

func answerOf(res *http.Response) answer {
	out := answer{outcome: webhook.Refused, status: res.StatusCode}
	switch {
	case res.StatusCode/100 == 2:
		out.outcome = webhook.Accepted
	case res.StatusCode == http.StatusGone:
		out.outcome = webhook.Gone
	case res.StatusCode == http.StatusTooManyRequests, res.StatusCode == http.StatusServiceUnavailable:
		out.retryAfter = retryafter.Parse(res.Header, time.Now())
	}
	return out
}

func failureOf(ctx context.Context, err error) webhook.Outcome {
	var timeout net.Error
	switch {
	case callback.Prohibited(err):
		return webhook.Prohibited
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return webhook.TimedOut
	}
	return webhook.Unreachable
}
