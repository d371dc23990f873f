package config_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/internal/config"
)

type pool struct {
	Name     string        `koanf:"name"`
	MaxSize  int           `koanf:"max_size"`
	MaxDelay time.Duration `koanf:"max_delay"`
}

type kafka struct {
	Brokers  []string      `koanf:"brokers" usage:"host:port of some brokers"`
	Password config.Secret `koanf:"password" usage:"SASL password"`
}

type settings struct {
	Kafka      kafka             `koanf:"kafka"`
	Listen     string            `koanf:"listen" usage:"address of the API"`
	DrainGrace time.Duration     `koanf:"drain_grace" usage:"time to finish what is in flight"`
	BodyLimit  config.Bytes      `koanf:"body_limit" usage:"largest request body"`
	Workers    int8              `koanf:"workers" usage:"goroutines"`
	Rate       float64           `koanf:"rate"`
	Debug      bool              `koanf:"debug" usage:"say more"`
	Level      slog.Level        `koanf:"log_level"`
	Pools      []pool            `koanf:"pools" usage:"pools and their batching"`
	Weights    map[string]uint   `koanf:"weights"`
	Retry      *time.Duration    `koanf:"retry"`
	Internal   func()            // no tag: not a setting
	validate   func() error      `koanf:"-"`
	Labels     map[string]string `koanf:"labels"`
}

func (s *settings) Validate() error {
	if s.validate != nil {
		return s.validate()
	}
	return nil
}

func defaults() *settings {
	return &settings{Listen: "127.0.0.1:8080", DrainGrace: 30 * time.Second, BodyLimit: 8 << 20, Workers: 4, Kafka: kafka{Brokers: []string{"a:1", "b:2", "c:3"}}}
}

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func yamlFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "penstock.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSourcesOverlayEachOther(t *testing.T) {
	t.Parallel()
	path := yamlFile(t, "listen: file:1\nworkers: 7\nkafka:\n  brokers: [file:9092]\n  password: hunter2\ndrain_grace: 1m\n")
	s := defaults()
	err := config.Load(s, config.Source{
		Args:   []string{"--listen", "flag:1", "--debug"},
		Getenv: env("PENSTOCK_LISTEN", "env:1", "PENSTOCK_DRAIN_GRACE", "5s", "PENSTOCK_CONFIG", path),
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Listen != "flag:1" || s.DrainGrace != 5*time.Second || s.Workers != 7 || s.BodyLimit != 8<<20 || !s.Debug {
		t.Errorf("flag > env > file > default is broken: %+v", s)
	}
	if s.Kafka.Password.Reveal() != "hunter2" || len(s.Kafka.Brokers) != 1 || s.Kafka.Brokers[0] != "file:9092" {
		t.Errorf("a nested setting of the file was lost: %v", s.Kafka.Brokers)
	}
}

func TestEveryKindOfValue(t *testing.T) {
	t.Parallel()
	want := defaults()
	want.Kafka.Brokers = []string{"x:1", "y:2"}
	want.Workers, want.Rate, want.Debug, want.Level = -3, 0.5, true, slog.LevelDebug
	want.BodyLimit = 64 << 10
	want.Pools = []pool{{"default", 32, 100 * time.Millisecond}, {"embed", 8, 0}}
	want.Weights = map[string]uint{"bulk": 1, "interactive": 8}
	want.Retry = new(time.Duration)
	*want.Retry = time.Second
	type source struct {
		name string
		src  config.Source
	}
	pools := "[{name: default, max_size: 32, max_delay: 100ms}, {name: embed, max_size: 8}]"
	for _, tc := range []source{
		{"from flags", config.Source{Args: []string{
			"--kafka-brokers", "x:1, y:2", "--workers=-3", "--rate=.5", "--debug", "--log-level", "debug", "--body-limit=64KiB",
			"--pools", pools, "--weights", "{bulk: 1, interactive: 8}", "--retry=1s",
		}}},
		{"from the environment", config.Source{Getenv: env(
			"PENSTOCK_KAFKA_BROKERS", "x:1,y:2", "PENSTOCK_WORKERS", "-3", "PENSTOCK_RATE", "0.5", "PENSTOCK_DEBUG", "true", "PENSTOCK_LOG_LEVEL", "DEBUG",
			"PENSTOCK_BODY_LIMIT", "65536", "PENSTOCK_POOLS", pools, "PENSTOCK_WEIGHTS", "{bulk: 1, interactive: 8}", "PENSTOCK_RETRY", "1s",
		)}},
		{"from a file", config.Source{Args: []string{"--config", yamlFile(t,
			"kafka_brokers: [x:1, y:2]\nworkers: -3\nrate: 0.5\ndebug: true\nlog_level: debug\nbody_limit: 65536\npools: "+pools+"\nweights: {bulk: 1, interactive: 8}\nretry: 1s\n")}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := defaults()
			if err := config.Load(got, tc.src); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".validate" }, cmp.Ignore())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFaultsAreNamedAsTyped(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		src  func(t *testing.T) config.Source
		want string
	}{
		{"an unknown flag names the nearest", args("--drain-grce", "1s"), "unknown flag --drain-grce (did you mean --drain-grace?)"},
		{"an unknown flag without a neighbour guesses nothing", args("--zzzzzzzzzzzz"), "unknown flag --zzzzzzzzzzzz"},
		{"a single dash is not a flag", args("-listen=x"), "unknown flag -listen (did you mean --listen?)"},
		{"a flag without its value", args("--listen"), "--listen: a value is missing"},
		{"a stray argument", args("serve"), `unexpected argument "serve"`},
		{"a duration without a unit", args("--drain-grace", "30"), `--drain-grace: want a duration with its unit, such as 30s, got "30"`},
		{"a number that overflows", args("--workers=300"), `--workers: want a whole number, got "300"`},
		{"a bad size", args("--body-limit=8 apples"), `--body-limit: want a size such as 8MiB, got "8 apples"`},
		{"a bad bool in the environment", environ("PENSTOCK_DEBUG", "yes"), `PENSTOCK_DEBUG: want true or false, got "yes"`},
		{"an unknown setting in a structured flag", args("--pools", "[{nme: x}]"), `--pools[0].nme: unknown setting (did you mean name?)`},
		{"a wrong shape", args("--pools", "many"), `--pools: want YAML for a list, got "many"`},
		{"a list where one value belongs", file("listen: [a, b]"), `: want one value, got a list`},
		{"a value inside a list", file("pools: [{max_size: x}]"), `[0].max_size: want a whole number, got "x"`},
		{"an unknown key in the file", file("drain_grave: 1s"), `(did you mean drain_grace?)`},
		{"an unknown nested key in the file", file("kafka: {broker: x}"), `kafka.broker in `},
		{"a setting given nested and flat", file("kafka: {brokers: x}\nkafka_brokers: y"), `given twice`},
		{"an empty setting in the file", file("listen:"), `want one value, got nothing`},
		{"a file that is not there", args("--config=/nonexistent.yaml"), `--config: read file /nonexistent.yaml`},
		{"a file that is not YAML", file("a: b: c"), `read file`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := config.Load(defaults(), tc.src(t))
			var e *config.Error
			if !errors.As(err, &e) || e.ExitCode() != 2 {
				t.Fatalf("got %v, want a *config.Error that exits 2", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want it to say %q", err, tc.want)
			}
		})
	}
}

func args(a ...string) func(*testing.T) config.Source {
	return func(*testing.T) config.Source { return config.Source{Args: a} }
}

func environ(pairs ...string) func(*testing.T) config.Source {
	return func(*testing.T) config.Source { return config.Source{Getenv: env(pairs...)} }
}

func file(text string) func(*testing.T) config.Source {
	return func(t *testing.T) config.Source {
		return config.Source{Args: []string{"--config", yamlFile(t, text)}}
	}
}

func TestAllFaultsComeAtOnceWithThoseOfValidate(t *testing.T) {
	t.Parallel()
	s := defaults()
	own := errors.New("listen: must be loopback")
	s.validate = func() error { return own }
	err := config.Load(s, config.Source{Args: []string{"--workers=x", "--nope"}, Getenv: env("PENSTOCK_RATE", "fast")})
	for _, want := range []string{"3 faults", "--workers", "--nope", "PENSTOCK_RATE", "listen: must be loopback"} {
		if want == "3 faults" {
			want = "4 faults"
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing from %q", want, err)
		}
	}
	if !errors.Is(err, own) {
		t.Error("the error of Validate was not wrapped")
	}
}

func TestHelpShowsEveryNameAndDefaultButNoSecret(t *testing.T) {
	t.Parallel()
	s := defaults()
	s.Kafka.Password = "hunter2"
	s.DrainGrace = 72 * time.Hour
	var out strings.Builder
	err := config.Load(s, config.Source{Name: "penstock-producer", About: "Takes tasks in.", Args: []string{"--help"}, Help: &out})
	if !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("got %v, want flag.ErrHelp", err)
	}
	for _, want := range []string{"Usage: penstock-producer", "Takes tasks in.", "--drain-grace duration", "(default 72h)", "PENSTOCK_DRAIN_GRACE", "(default a:1,b:2,c:3)", "(default 8MiB)", "--config FILE", "--debug  "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Error("help prints a secret")
	}
}

func TestRestReceivesWhatIsNotAFlag(t *testing.T) {
	t.Parallel()
	var rest []string
	err := config.Load(defaults(), config.Source{Args: []string{"a.jsonl", "--debug", "-", "--", "--listen"}, Rest: &rest})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a.jsonl", "-", "--listen"}, rest); diff != "" {
		t.Error(diff)
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	s := config.Secret("hunter2")
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "password", s, "config", kafka{Password: s})
	encoded, err := json.Marshal(kafka{Password: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprintf("%v %s %q %x %d %#v %+v", s, s, s, s, s, s, s), fmt.Sprintf("%v %+v %#v", kafka{Password: s}, kafka{Password: s}, kafka{Password: s}),
		fmt.Sprintf("%v", &s), s.String(), logged.String(), string(encoded),
	} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "68756e") || !strings.Contains(text, "[redacted]") {
			t.Errorf("a secret shows in %q", text)
		}
	}
	if s.Reveal() != "hunter2" {
		t.Error("Reveal does not reveal")
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.Bytes{"8MiB": 8 << 20, "1.5 gib": 3 << 29, "512": 512, "0": 0, "10KB": 10_000, "7b": 7, "2TiB": 2 << 40} {
		if got, err := config.ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5", "1e30", "8 apples", "NaN", "Inf", "99999999TiB"} {
		if got, err := config.ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		}
	}
}

func TestBytesSurviveTheirText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := config.Bytes(rapid.Int64Min(0).Draw(t, "bytes"))
		got, err := config.ParseBytes(b.String())
		if err != nil || got != b {
			t.Fatalf("%d became %q became %d, %v", int64(b), b, got, err)
		}
	})
}
