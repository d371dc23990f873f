package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/catalog"
)

// repositoryRoot is the root of the tree, seen from this package.
const repositoryRoot = "../.."

// composeServices are those of the compose file that run a binary of ours.
var composeServices = [...]string{"producer", "worker", "resultsvc"}

func composeProject(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(repositoryRoot, "docker-compose.yml")}, cli.WithResolvedPaths(true), cli.WithProfiles([]string{"*"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("docker-compose.yml does not load: %v", err)
	}
	return project
}

// buildAsImage compiles a main package with the flags of the Dockerfile's go build.
func buildAsImage(t *testing.T, module, pkg string) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "binary")
	flags := dockerfileFlags(t)
	cmd := exec.CommandContext(t.Context(), "go", slices.Concat([]string{"build"}, flags, []string{"-o", binary, pkg})...)
	cmd.Dir = filepath.Join(repositoryRoot, module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("GOWORK=off go build %s in %s: %v\n%s", pkg, module, err, out)
	}
	return binary
}

// dockerfileFlags reads the flags out of the Dockerfile, so that the test
// builds what the image builds.
func dockerfileFlags(t *testing.T) []string {
	t.Helper()
	lines := regexp.MustCompile(`go build (-.*?) -o /out/`).FindAllSubmatch(readRepository(t, "deploy/docker/Dockerfile"), -1)
	if len(lines) != 2 || !bytes.Equal(lines[0][1], lines[1][1]) {
		t.Fatalf("the Dockerfile has %d go build lines, want two with the same flags", len(lines))
	}
	var flags []string
	for _, m := range regexp.MustCompile(`-\w+(="[^"]*")?`).FindAllString(string(lines[0][1]), -1) {
		flags = append(flags, strings.ReplaceAll(m, `"`, ""))
	}
	return flags
}

func readRepository(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repositoryRoot, path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestComposeServicesArePinnedAndChecked(t *testing.T) {
	t.Parallel()
	project := composeProject(t)
	for name, s := range project.Services {
		_, tag, found := strings.Cut(s.Image, ":")
		if !found || tag == "latest" {
			t.Errorf("%s: image %q is not pinned", name, s.Image)
		}
		if name == "topics" { // runs once and ends
			continue
		}
		if s.HealthCheck == nil || len(s.HealthCheck.Test) < 2 {
			t.Errorf("%s has no healthcheck", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes port %s on %q: the example key is public, so only loopback will do", name, p.Published, p.HostIP)
			}
		}
	}
	for _, name := range []string{"kafka", "redis"} {
		if len(project.Services[name].Volumes) == 0 {
			t.Errorf("%s keeps its data in no named volume", name)
		}
	}
}

func TestComposeStartsThingsWhenTheirNeedsAreMet(t *testing.T) {
	t.Parallel()
	project := composeProject(t)
	for name, s := range project.Services {
		for need, how := range s.DependsOn {
			other, err := project.GetService(need)
			if err != nil {
				t.Errorf("%s waits for %s: %v", name, need, err)
				continue
			}
			if how.Condition == types.ServiceConditionHealthy && other.HealthCheck == nil {
				t.Errorf("%s waits for the health of %s, which is never checked", name, need)
			}
			if how.Condition == types.ServiceConditionStarted {
				t.Errorf("%s does not wait until %s is healthy", name, need)
			}
		}
	}
	for _, name := range composeServices {
		if needs := project.Services[name].DependsOn; needs["topics"].Condition != types.ServiceConditionCompletedSuccessfully || needs["redis"].Condition != types.ServiceConditionHealthy {
			t.Errorf("%s waits for %v, want the topics and Redis", name, needs)
		}
	}
}

// Each setting in the compose file must be one that the service has: an
// unknown variable would be ignored in silence.
func TestComposeServicesBuildAndKnowTheirSettings(t *testing.T) {
	t.Parallel()
	project := composeProject(t)
	for _, name := range composeServices {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service, err := project.GetService(name)
			if err != nil {
				t.Fatal(err)
			}
			if arg := service.Build.Args["SERVICE"]; arg == nil || *arg != name {
				t.Fatalf("%s is built with SERVICE=%v", name, arg)
			}
			binary := buildAsImage(t, name, "./cmd/penstock-"+name)
			help, err := exec.CommandContext(t.Context(), binary, "--help").CombinedOutput()
			if err != nil {
				t.Fatalf("%s --help: %v\n%s", name, err, help)
			}
			for key := range service.Environment {
				if strings.HasPrefix(key, "PENSTOCK_") && !regexp.MustCompile(`\b`+key+`\b`).Match(help) {
					t.Errorf("%s does not know %s; it knows\n%s", name, key, help)
				}
			}
		})
	}
}

func TestComposeUsesVerbsThatTheCLIHas(t *testing.T) {
	t.Parallel()
	binary := buildAsImage(t, "cmd", "./penstock")
	for name, s := range composeProject(t).Services {
		for _, command := range [][]string{s.Entrypoint, composeProbe(s)} {
			if len(command) == 0 || command[0] != "/penstock" {
				continue
			}
			// --help parses the flags that come before it.
			args := append(slices.Clone(command[1:]), "--help")
			if out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput(); err != nil {
				t.Errorf("%s runs penstock %s: %v\n%s", name, strings.Join(command[1:], " "), err, out)
			}
		}
	}
}

// composeProbe returns the healthcheck's command without Docker's leading CMD.
func composeProbe(s types.ServiceConfig) []string {
	if s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 {
		return nil
	}
	return s.HealthCheck.Test[1:]
}

func TestComposeFilesAreValid(t *testing.T) {
	t.Parallel()
	keys, err := auth.OpenKeys(filepath.Join(repositoryRoot, "deploy/docker/keys.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`penstock_example\.\S+`).FindString(string(readRepository(t, "deploy/docker/keys.yaml")))
	if _, err := keys.Authenticate(t.Context(), example); err != nil {
		t.Errorf("the key that the comment shows does not work: %v", err)
	}
	c, err := catalog.Load(filepath.Join(repositoryRoot, "deploy/docker/catalog.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	project := composeProject(t)
	for _, pool := range c.Pools {
		if topics := strings.Join(project.Services["topics"].Entrypoint, " "); !strings.Contains(topics, pool.Name) {
			t.Errorf("the topics of pool %s are not created by %q", pool.Name, topics)
		}
	}
}
