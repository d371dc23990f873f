package backend

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/penstock/penstock/schema/fault"
)

// RefuseURLs returns a fault if a part of chat messages is given by a URL that
// is not a data: URL. An engine would fetch it from inside our network, at a
// stranger's wish.
func RefuseURLs(messages json.RawMessage) error {
	if !bytes.Contains(messages, []byte(`_url`)) && !bytes.Contains(messages, []byte(`\u`)) {
		return nil // the usual case, without decoding
	}
	var all any
	if err := json.Unmarshal(messages, &all); err != nil {
		return fault.New(fault.Rejected, "messages is not JSON")
	}
	if fetches(all, false) {
		return fault.New(fault.Rejected, "media is not fetched from URLs: send it as a data: URL")
	}
	return nil
}

// fetches reports whether v holds a URL to be fetched, in a member whose name
// ends in _url: as its text, or as its member "url".
func fetches(v any, named bool) bool {
	switch v := v.(type) {
	case string:
		return named && !strings.HasPrefix(strings.ToLower(strings.TrimSpace(v)), "data:")
	case []any:
		for _, item := range v {
			if fetches(item, named) {
				return true
			}
		}
	case map[string]any:
		for name, item := range v {
			if fetches(item, strings.HasSuffix(name, "_url") || named && name == "url") {
				return true
			}
		}
	}
	return false
}
