package producer

import (
	"os"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/topic"
)

// bulkParts are what files and batches stand on.
type bulkParts struct {
	pub     *tasktopic.Publisher
	blobs   *blob.Store // nil: there are no files
	claims  *claimcheck.Desk
	intake  *ingest.Intake
	cancels *cancel.Desk
}

// openBulk has Run keep files and run batches.
func (s *Service) openBulk(cfg Config, d Deps, p bulkParts) (*bulk.Desk, error) {
	parser, err := openai.NewParser(spec.FS)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = cfg.Kafka.ClientID // a name for people, no more
	}
	params := bulk.Params{
		Publisher: p.pub, Intake: p.intake, Waiter: d.Follower, Results: p.claims, Cancels: p.cancels,
		Dialect: bulk.OpenAI{Parser: parser}, Log: d.Log, Metrics: d.Registry, Owner: host, MaxTaskAge: cfg.MaxTaskAge,
		Webhooks: callback.Policy{AllowPrivate: cfg.WebhookAllowPrivate},
		MaxFile:  int64(cfg.Bulk.MaxFile), MaxLine: api.MaxBody, FileLife: cfg.Bulk.FileLife, Window: cfg.Bulk.Window, Batches: cfg.Bulk.Batches,
	}
	if p.blobs != nil {
		control, err := tasktopic.NewReplay(cfg.Kafka, d.Log, topic.Control)
		if err != nil {
			return nil, err
		}
		s.stack.PushClose("control", func() error { control.Close(); return nil })
		params.Blobs, params.Source = p.blobs, control
	}
	desk, err := bulk.New(params)
	if err != nil {
		return nil, err
	}
	s.loops = append(s.loops, desk.Run)
	return desk, nil
}
