package tasktopic_test

import (
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/tasktopic"
)

func TestConfigRefusesLivesThatDoNotFitTogether(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*tasktopic.Config)
		want   string
	}{
		"the default":                             {func(*tasktopic.Config) {}, ""},
		"no partitions":                           {func(c *tasktopic.Config) { c.Partitions = 0 }, "partitions:"},
		"tasks that outlive half the retention":   {func(c *tasktopic.Config) { c.MaxTaskAge = 37 * time.Hour }, "max_task_age:"},
		"no age at all":                           {func(c *tasktopic.Config) { c.MaxTaskAge = 0 }, "max_task_age:"},
		"results that outlive what rebuilds them": {func(c *tasktopic.Config) { c.ResultTTL = 37 * time.Hour }, "result_ttl:"},
		"results that nobody could read":          {func(c *tasktopic.Config) { c.ResultTTL = 0 }, "result_ttl:"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tasktopic.DefaultConfig()
			tt.change(&c)
			err := c.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("Validate() = %v, want a fault of %q", err, tt.want)
			}
		})
	}
}
