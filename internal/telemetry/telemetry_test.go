package telemetry_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/penstock/penstock/internal/telemetry"
)

func TestLogger(t *testing.T) {
	t.Parallel()
	t.Run("writes JSON from its level up", func(t *testing.T) {
		t.Parallel()
		var out strings.Builder
		log, err := telemetry.NewLogger(&out, "warn", "json")
		if err != nil {
			t.Fatal(err)
		}
		log.Info("hidden")
		log.Warn("shown", "attempt", 2)
		var line map[string]any
		if err := json.Unmarshal([]byte(out.String()), &line); err != nil {
			t.Fatalf("not one JSON line: %v in %q", err, out.String())
		}
		if line["msg"] != "shown" || line["attempt"] != 2.0 {
			t.Errorf("got %v", line)
		}
	})
	t.Run("refuses what it does not know", func(t *testing.T) {
		t.Parallel()
		for _, tc := range [][2]string{{"loud", "json"}, {"info", "xml"}, {"", "text"}} {
			if _, err := telemetry.NewLogger(&strings.Builder{}, tc[0], tc[1]); err == nil {
				t.Errorf("level %q with format %q was accepted", tc[0], tc[1])
			}
		}
	})
}

func TestRegistryServesBuildAndRuntime(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	telemetry.MetricsHandler(telemetry.NewRegistry("producer")).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`penstock_build_info{commit=`, `service="producer"`, `go_version="go1`, "go_goroutines ", "process_start_time_seconds "} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("metrics lack %q", want)
		}
	}
}

func TestTraceParentOnTheWire(t *testing.T) {
	t.Parallel()
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for s, valid := range map[string]bool{
		"00-" + trace + "-" + span + "-01":                        true,
		"00-" + trace + "-" + span + "-00":                        true,
		"cc-" + trace + "-" + span + "-01-extra":                  true,
		"cc-" + trace + "-" + span + "-01extra":                   false,
		"00-" + trace + "-" + span + "-01-extra":                  false,
		"ff-" + trace + "-" + span + "-01":                        false,
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01":      false,
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01":     false,
		"00-" + strings.ToUpper(trace) + "-" + span + "-01":       false,
		"00-4bf92f3577b34dX6a3ce929d0e0e4736-00f067aa0ba902b7-01": false,
		"00-" + trace + "-" + span:                                false,
		"":                                                        false,
	} {
		if got := telemetry.ValidTraceParent(s); got != valid {
			t.Errorf("ValidTraceParent(%q) = %v", s, got)
		}
		ctx := telemetry.WithTraceParent(t.Context(), s)
		if carried := telemetry.TraceParent(ctx); (carried == s && valid) != valid || (!valid && carried != "") {
			t.Errorf("the context carries %q of %q", carried, s)
		}
	}
}

func TestAChildKeepsTheTraceAndChangesTheSpan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parent := telemetry.NewTraceParent()
		if rapid.Bool().Draw(t, "garbage") {
			parent = rapid.String().Draw(t, "parent")
		}
		child := telemetry.ChildTraceParent(parent)
		if !telemetry.ValidTraceParent(child) || child == parent {
			t.Fatalf("child %q of %q", child, parent)
		}
		if id := telemetry.TraceID(parent); id != "" && telemetry.TraceID(child) != id {
			t.Fatalf("child %q left the trace of %q", child, parent)
		}
	})
}
