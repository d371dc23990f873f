package simulated_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/worker/backend/simulated"
)

func TestTheFilterKnowsWholeWordsInAnyCase(t *testing.T) {
	for text, want := range map[string]string{
		"have a nice day": "", "I HATE this": "hate", "a bomb, perhaps": "illicit/violent", "attacker": "", "hatred": "", "": "", "insult!": "harassment",
	} {
		v := simulated.Moderate(text)
		if v.Flagged != (want != "") || want != "" && (!v.Categories[want] || v.Scores[want] < 0.5) || len(v.Categories) != len(v.Scores) || len(v.Categories) != 13 {
			t.Errorf("%q: %+v", text, v)
		}
	}
}

func TestModerationsHaveAVerdictForEachInput(t *testing.T) {
	srv := httptest.NewServer(simulated.New(simulated.DefaultParams()).Handler())
	defer srv.Close()
	for body, want := range map[string][]bool{
		`{"input":"hate"}`:          {true},
		`{"input":["hate","love"]}`: {true, false},
		`{"input":[{"type":"text","text":"love"},{"type":"text","text":"hate"},{"type":"image_url"}]}`: {true},
		`{"input":[]}`: nil,
		`{}`:           nil,
		`{`:            nil,
	} {
		res, err := http.Post(srv.URL+"/v1/moderations", "application/json", strings.NewReader(body)) //nolint:noctx // a test's own server
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Results []simulated.Verdict }
		err = json.NewDecoder(res.Body).Decode(&got)
		_ = res.Body.Close()
		if ok := res.StatusCode == 200; err != nil || ok != (want != nil) || len(got.Results) != len(want) {
			t.Errorf("%s: %d, %+v, %v", body, res.StatusCode, got, err)
			continue
		}
		for i, flagged := range want {
			if got.Results[i].Flagged != flagged {
				t.Errorf("%s: %d is %+v", body, i, got.Results[i])
			}
		}
	}
}
