package system

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/topic"
)

// Params say what to run.
type Params struct {
	Bin   string   // directory of the binaries, see Build
	Dir   string   // for catalogs and logs
	Kafka []string // bootstrap addresses
	Redis string   // URL
	// Links stand between the parts where given; those to Kafka and Redis come
	// from StartKafka and StartRedis.
	Links *Links

	Producers, Workers, Results int // how many of each; default 1; -1 workers are none

	// Catalog is the YAML that producers and workers read. Empty: the models
	// sim-chat and sim-embed on simulators of the system's own.
	Catalog string
	// Simulate are further arguments of `penstock simulate`.
	Simulate []string
	// SimulatorSlots is how many calls at once a simulator of the system's own
	// is given; 0: the catalog's default.
	SimulatorSlots int
	// SimulatorEach gives every worker a simulator of its own, so that its log
	// tells who ran what.
	SimulatorEach bool
	// Env are further settings of every service, NAME=value.
	Env []string
}

// System is a running Penstock.
type System struct {
	Producers, Workers, Results []*Process
	Simulators                  []*Process // one, or one for each worker

	p       Params
	admins  map[*Process]string
	engines []string   // base URLs of the simulators, as workers reach them
	all     []*Process // in the order of their start
	cl      *client.Client
}

// Build compiles every binary into a directory.
func Build(ctx context.Context, dir string, flags ...string) error {
	for _, pkg := range []string{"producer/cmd/penstock-producer", "worker/cmd/penstock-worker", "resultsvc/cmd/penstock-resultsvc", "cmd/penstock"} {
		args := append([]string{"build"}, flags...)
		args = append(args, "-o", filepath.Join(dir, filepath.Base(pkg)), "github.com/penstock/penstock/"+pkg)
		out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

// Start creates the topics, starts every process and waits until each is
// ready. On error nothing is left running.
func Start(ctx context.Context, p Params) (_ *System, err error) {
	p.Producers, p.Results = max(1, p.Producers), max(1, p.Results)
	if p.Workers == 0 {
		p.Workers = 1
	}
	s := &System{p: p, admins: map[*Process]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.createTopics(ctx); err != nil {
		return nil, err
	}
	if err := s.startAll(ctx); err != nil {
		return nil, err
	}
	faces := client.Config{API: s.Producers[0].URL, Results: s.Results[0].URL}
	if len(s.Workers) > 0 {
		faces.Admin = s.Admin(s.Workers[0])
	}
	s.cl, err = client.New(faces)
	return s, err
}

func (s *System) startAll(ctx context.Context) error {
	if s.p.Catalog == "" {
		if err := s.simulator(ctx); err != nil {
			return err
		}
	}
	for range s.p.Workers {
		if _, err := s.AddWorker(ctx); err != nil {
			return err
		}
	}
	for range s.p.Results {
		if _, err := s.AddResults(ctx); err != nil {
			return err
		}
	}
	for range s.p.Producers {
		if _, err := s.AddProducer(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *System) createTopics(ctx context.Context) error {
	c, err := s.catalog()
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: s.p.Kafka, ClientID: "penstock-system"}, log)
	if err != nil {
		return err
	}
	defer cl.Close()
	replication, err := kafkaclient.Replication(ctx, cl)
	if err != nil {
		return err
	}
	plan, err := topic.Plan(topic.Params{Pools: c.PoolNames(), Replication: replication})
	if err != nil {
		return err
	}
	return kafkaclient.EnsureTopics(ctx, cl, plan, log)
}

// catalog parses what the services will read; with simulators their URL does
// not matter here.
func (s *System) catalog() (*catalog.Catalog, error) {
	text := s.p.Catalog
	if text == "" {
		text = s.simulatedCatalog("http://127.0.0.1:1")
	}
	return catalog.Parse([]byte(text))
}

// simulatedCatalog has the models of development on one simulator.
func (s *System) simulatedCatalog(url string) string {
	return fmt.Sprintf(`models:
  - {id: sim-chat, pool: default, kinds: [chat, completion]}
  - {id: sim-embed, pool: embed, kinds: [embedding]}
pools:
  - name: default
    backends: [{name: simulator, url: "openai+%[1]s", models: [sim-chat], concurrency: %[2]d}]
  - name: embed
    backends: [{name: simulator, url: "openai+%[1]s", models: [sim-embed], concurrency: %[2]d}]
`, url, s.p.SimulatorSlots)
}

func (s *System) simulator(ctx context.Context) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	p, err := s.start(spec{
		name: fmt.Sprintf("simulator-%d", len(s.Simulators)+1), path: filepath.Join(s.p.Bin, "penstock"),
		args: append([]string{"simulate", "--listen", addr}, s.p.Simulate...), url: "http://" + addr,
		probe: answers("http://" + addr + "/readyz"),
	})
	if err != nil {
		return err
	}
	s.Simulators = append(s.Simulators, p)
	if addr, err = s.p.Links.through(WorkerBackend, addr); err != nil {
		return err
	}
	s.engines = append(s.engines, "http://"+addr)
	return p.ready(ctx)
}

// AddProducer starts one more ingress and waits until it is ready.
func (s *System) AddProducer(ctx context.Context) (*Process, error) {
	p, err := s.service(ctx, "producer", len(s.Producers)+1)
	s.Producers = appendIf(s.Producers, p)
	return p, err
}

// AddResults starts one more results service and waits until it is ready.
func (s *System) AddResults(ctx context.Context) (*Process, error) {
	p, err := s.service(ctx, "resultsvc", len(s.Results)+1)
	s.Results = appendIf(s.Results, p)
	return p, err
}

// AddWorker starts one more worker and waits until it is ready.
func (s *System) AddWorker(ctx context.Context) (*Process, error) {
	if s.p.Catalog == "" && s.p.SimulatorEach && len(s.Workers) >= len(s.Simulators) {
		if err := s.simulator(ctx); err != nil {
			return nil, err
		}
	}
	p, err := s.service(ctx, "worker", len(s.Workers)+1)
	s.Workers = appendIf(s.Workers, p)
	return p, err
}

// Replace drains a service and starts it anew at the same address, as a rolling
// update does. The process keeps its place in the lists.
func (s *System) Replace(ctx context.Context, p *Process) error {
	if err := p.Term(); err != nil {
		return err
	}
	return p.Restart(ctx)
}

// doors names the links of a role: to Kafka, to Redis, and from clients.
var doors = map[string]struct{ kafka, redis, client string }{
	"producer":  {ProducerKafka, ProducerRedis, ClientProducer},
	"worker":    {WorkerKafka, WorkerRedis, ""},
	"resultsvc": {ResultsKafka, ResultsRedis, ClientResults},
}

// service starts a process of a role on two free ports.
func (s *System) service(ctx context.Context, role string, n int) (*Process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddr()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s-%d", role, n)
	path, err := s.writeCatalog(name)
	if err != nil {
		return nil, err
	}
	url, err := s.entry(role, addr)
	if err != nil {
		return nil, err
	}
	p, err := s.start(spec{
		name: name, path: filepath.Join(s.p.Bin, "penstock-"+role), url: url,
		probe: answers("http://" + admin + "/readyz"),
		env: append(append([]string{
			"PENSTOCK_LISTEN=" + addr,
			"PENSTOCK_ADMIN_LISTEN=" + admin,
			"PENSTOCK_CATALOG=" + path,
		}, s.servers(role)...), s.p.Env...),
	})
	if err != nil {
		return nil, err
	}
	s.admins[p] = "http://" + admin
	return p, p.ready(ctx)
}

// entry is the base URL at which clients reach a service.
func (s *System) entry(role, addr string) (string, error) {
	link := doors[role].client
	if link == "" {
		return "http://" + addr, nil
	}
	addr, err := s.p.Links.through(link, addr)
	return "http://" + addr, err
}

// servers are the settings that tell a role where Kafka and Redis are.
func (s *System) servers(role string) []string {
	redis := s.p.Redis
	if via := s.p.Links.addrs(doors[role].redis, nil); len(via) > 0 {
		redis = "redis://" + via[0] + "/0"
	}
	return []string{
		"PENSTOCK_KAFKA_BROKERS=" + strings.Join(s.p.Links.addrs(doors[role].kafka, s.p.Kafka), ","),
		"PENSTOCK_REDIS_URL=" + redis,
	}
}

func (s *System) start(sp spec) (*Process, error) {
	sp.log = filepath.Join(s.p.Dir, sp.name+".log")
	p, err := start(sp)
	if err != nil {
		return nil, err
	}
	s.all = append(s.all, p)
	return p, nil
}

// writeCatalog gives a process its catalog; with a simulator for each worker
// the last one started is this worker's.
func (s *System) writeCatalog(name string) (string, error) {
	text := s.p.Catalog
	if text == "" {
		text = s.simulatedCatalog(s.engines[len(s.engines)-1])
	}
	path := filepath.Join(s.p.Dir, name+".catalog.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("write catalog: %w", err)
	}
	return path, nil
}

// Client speaks to the first process of each role.
func (s *System) Client() *client.Client { return s.cl }

// Admin is the base URL of a process's admin listener: metrics and, on a
// worker, the operator's routes.
func (s *System) Admin(p *Process) string { return s.admins[p] }

// Stop drains every process that still runs, the last started first; one that
// was frozen may go on for it.
func (s *System) Stop() error {
	if s.cl != nil {
		s.cl.Close()
	}
	var errs []error
	for i := len(s.all) - 1; i >= 0; i-- {
		if p := s.all[i]; p.Alive() {
			errs = append(errs, p.Cont(), p.Term())
		}
	}
	return errors.Join(errs...)
}

func appendIf(list []*Process, p *Process) []*Process {
	if p == nil {
		return list
	}
	return append(list, p)
}
