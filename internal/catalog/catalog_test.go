package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/schema/task"
)

const good = `
models:
  - {id: sim-chat}
  - {id: sim-embed, pool: embed, kinds: [embedding]}
pools:
  - name: default
    backends: [{url: "http://127.0.0.1:9000"}]
  - name: embed
    route: random
    batch: {max_tasks: 8, max_delay: 20ms}
    backends: [{name: e1, url: "json+http://127.0.0.1:9001", concurrency: 2}]
`

func TestParse(t *testing.T) {
	c, err := catalog.Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := c.Model("sim-chat")
	if !ok || m.Pool != "default" || !m.Serves(task.Chat) || m.Serves(task.Embedding) {
		t.Errorf("sim-chat = %+v", m)
	}
	if b := c.Pools[0].Backends[0]; b.Name != "127.0.0.1:9000" || b.Concurrency != 8 {
		t.Errorf("defaults of a backend = %+v", b)
	}
	if b := c.Pools[1].Batch; b.MaxTasks != 8 || b.MaxDelay != 20*time.Millisecond {
		t.Errorf("batch = %+v", b)
	}
	if b := c.Pools[0].Batch; b.MaxTasks != 32 || b.MaxDelay != 100*time.Millisecond {
		t.Errorf("default batch = %+v", b)
	}
}

func TestParseTellsCauseAndPlace(t *testing.T) {
	for name, tc := range map[string]struct{ yaml, want string }{
		"nothing at all":         {"", "pools: at least one"},
		"a typo":                 {strings.Replace(good, "route:", "rout:", 1), "rout"},
		"a model without a pool": {strings.Replace(good, "pool: embed", "pool: gone", 1), `"gone"`},
		"an unknown route":       {strings.Replace(good, "random", "best", 1), `"best"`},
		"an unknown kind":        {strings.Replace(good, "[embedding]", "[poem]", 1), `"poem"`},
		"a pool no topic can be": {strings.Replace(good, "name: default", "name: De.fault", 1), "pool name"},
		"a model named twice":    {strings.Replace(good, "id: sim-embed", "id: sim-chat", 1), "twice"},
		"a backend without url":  {strings.Replace(good, `url: "http://127.0.0.1:9000"`, `name: x`, 1), "url is required"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := catalog.Parse([]byte(tc.yaml))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("err = %v; want it to say %q", err, tc.want)
			}
		})
	}
}
