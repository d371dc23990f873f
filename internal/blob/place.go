package blob

import (
	"fmt"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// place is where a blob lies in the store: its key is shelf/box/hash.
type place struct {
	shelf shelf
	box   string // the owner's name of a kept one; else two digits of the hash, which keep directories small
}

// shelf is what a sweep takes away at once: the blobs that were put on one day,
// or those that are kept until the end of one.
type shelf struct {
	day  string // as in dayLayout
	kept bool
}

const (
	// dayLayout is how a day is written in a key.
	dayLayout = "2006-01-02"
	// keptPrefix is before the day until whose end blobs are kept.
	keptPrefix = "until-"
	// hashLength is that of SHA-256 in hex.
	hashLength = 64
	// nameLength bounds the name of a kept blob.
	nameLength = 64

	hexDigits  = "0123456789abcdef"
	nameDigits = "abcdefghijklmnopqrstuvwxyz0123456789-_"
)

func putOn(t time.Time) shelf     { return shelf{day: t.UTC().Format(dayLayout)} }
func keptUntil(t time.Time) shelf { return shelf{t.UTC().Format(dayLayout), true} }

// String is the shelf's part of a key.
func (s shelf) String() string {
	if s.kept {
		return keptPrefix + s.day
	}
	return s.day
}

// parseShelf reads String's form; false for anything else.
func parseShelf(text string) (shelf, bool) {
	day, kept := strings.CutPrefix(text, keptPrefix)
	_, err := time.Parse(dayLayout, day)
	return shelf{day, kept}, err == nil
}

// over reports whether nothing of the shelf is wanted any more, where what was
// put must last for life.
func (s shelf) over(now time.Time, life time.Duration) bool {
	began, err := time.Parse(dayLayout, s.day)
	if s.kept {
		life = 0
	}
	return err == nil && now.Sub(began) >= 24*time.Hour+life
}

func (p place) key(hash string) string {
	box := p.box
	if box == "" {
		box = hash[:2]
	}
	return p.shelf.String() + "/" + box + "/" + hash
}

// placeOf checks a reference and returns its place. References come from records,
// which strangers may have written: nothing else reaches a path or a bucket.
func placeOf(ref task.Ref) (place, error) {
	shelfPart, rest, _ := strings.Cut(ref.Key, "/")
	box, _, _ := strings.Cut(rest, "/")
	var at place
	s, ok := parseShelf(shelfPart)
	if at.shelf = s; s.kept {
		at.box = box
		ok = ok && isName(box)
	}
	hex := len(ref.SHA256) == hashLength && strings.Trim(ref.SHA256, hexDigits) == ""
	if !ok || !hex || ref.Bytes < 0 || ref.Key != at.key(ref.SHA256) {
		return place{}, fmt.Errorf("%w: key %.128q", ErrRef, ref.Key)
	}
	return at, nil
}

func isName(name string) bool {
	return name != "" && len(name) <= nameLength && strings.Trim(name, nameDigits) == ""
}
