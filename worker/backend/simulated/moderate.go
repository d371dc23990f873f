package simulated

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"unicode"
)

// ModerationModel is the filter's name.
const ModerationModel = "sim-moderation"

// flagged is the word list of the filter: the category that each word means.
// Words count in any case, and as whole words only.
func flagged() map[string]string {
	return map[string]string{
		"insult": "harassment", "hate": "hate", "attack": "violence", "bomb": "illicit/violent", "explicit": "sexual",
	}
}

// moderationCategories are those of the OpenAI API.
func moderationCategories() []string {
	return []string{
		"harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
		"self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
	}
}

// Scores of a category that a word was found for, and of one without.
const (
	scoreFound = 0.99
	scoreNone  = 0.01
)

// Verdict is what the filter thinks of one input.
type Verdict struct {
	Flagged    bool                `json:"flagged"`
	Categories map[string]bool     `json:"categories"`
	Scores     map[string]float64  `json:"category_scores"`
	Applied    map[string][]string `json:"category_applied_input_types"`
}

// Moderate judges a text by the word list: the same text, the same verdict.
func Moderate(text string) Verdict {
	v := Verdict{Categories: map[string]bool{}, Scores: map[string]float64{}, Applied: map[string][]string{}}
	for _, c := range moderationCategories() {
		v.Categories[c], v.Scores[c], v.Applied[c] = false, scoreNone, []string{"text"}
	}
	list := flagged()
	for word := range strings.FieldsFuncSeq(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) }) {
		if c := list[word]; c != "" {
			v.Flagged, v.Categories[c], v.Scores[c] = true, true, scoreFound
		}
	}
	return v
}

func (e *Engine) serveModeration(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Model string          `json:"model"`
		Input json.RawMessage `json:"input"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&asked); err != nil {
		replyError(w, 400, "not a request: "+err.Error())
		return
	}
	texts := moderatedTexts(asked.Input)
	if len(texts) == 0 {
		replyError(w, 400, "input is required: a text, texts, or parts")
		return
	}
	if asked.Model == "" {
		asked.Model = ModerationModel
	}
	results := make([]Verdict, len(texts))
	for i, text := range texts {
		results[i] = Moderate(text)
	}
	sum := sha256.Sum256(asked.Input)
	reply(w, 200, map[string]any{"id": "modr-" + hex.EncodeToString(sum[:8]), "model": asked.Model, "results": results})
}

// moderatedTexts are the inputs that get a verdict each. Parts are one input
// together; of images nothing is thought.
func moderatedTexts(input json.RawMessage) []string {
	var one string
	if json.Unmarshal(input, &one) == nil {
		return []string{one}
	}
	var many []string
	if json.Unmarshal(input, &many) == nil {
		return many
	}
	var parts []struct{ Text string }
	if json.Unmarshal(input, &parts) != nil || len(parts) == 0 {
		return nil
	}
	for _, p := range parts {
		one += p.Text + "\n"
	}
	return []string{one}
}
