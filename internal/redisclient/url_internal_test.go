package redisclient

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestURLForms(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]target{
		"redis://localhost":                  {addrs: []string{"localhost:6379"}},
		"localhost:7000":                     {addrs: []string{"localhost:7000"}},
		"redis://[::1]:1/3":                  {addrs: []string{"[::1]:1"}, db: 3},
		"redis://[::1]":                      {addrs: []string{"[::1]:6379"}},
		"rediss://bob:p%40ss@h:1":            {addrs: []string{"h:1"}, username: "bob", password: "p@ss", tls: true},
		"redis://:p@ss@h:1":                  {addrs: []string{"h:1"}, password: "p@ss"},
		"redis://a:1,b:2, c":                 {addrs: []string{"a:1", "b:2", "c:6379"}},
		"redis://a:1?cluster=true":           {addrs: []string{"a:1"}, cluster: true},
		"redis+sentinel://a:1,b:2/main?db=2": {addrs: []string{"a:1", "b:2"}, master: "main", db: 2},
		"rediss+sentinel://:pw@a:1/main":     {addrs: []string{"a:1"}, master: "main", tls: true, password: "pw"},
	} {
		got, err := parse(text)
		if err != nil {
			t.Errorf("parse(%q): %v", text, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(target{})); diff != "" {
			t.Errorf("parse(%q): %s", text, diff)
		}
	}
}

func TestABadURLIsExplainedWithoutItsPassword(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"http://:hunter2@h":                 "unknown scheme",
		"redis://:hunter2@":                 "a host is missing",
		"redis://:hunter2@h:1/x":            `database "x"`,
		"redis://:hunter2@h:port":           `port "port"`,
		"redis://:hunter2%zz@h":             "percent-encoded",
		"redis+sentinel://:hunter2@h:1":     "master's name",
		"redis://:hunter2@h:1?pool=3":       `unknown option "pool"`,
		"redis://:hunter2@a:1,b:1?db=3":     "only database 0",
		"redis://:hunter2@a:1?cluster=some": "invalid syntax",
	} {
		_, err := parse(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("parse(%q) = %v, want it to say %q", text, err, want)
		}
	}
}
