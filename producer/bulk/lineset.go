package bulk

import "math/bits"

// span is a run of lines, both ends included, as an entry writes it.
type span [2]int

// lineSet is a set of lines by their place among the requests of the file, from
// 0. The zero set is empty.
type lineSet []uint64

func (s lineSet) has(n int) bool {
	return n >= 0 && n>>6 < len(s) && s[n>>6]&(1<<(n&63)) != 0
}

func (s *lineSet) add(n int) {
	for n>>6 >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[n>>6] |= 1 << (n & 63)
}

// addAll adds the lines of spans; what cannot be a line is left out.
func (s *lineSet) addAll(spans []span) {
	for _, sp := range spans {
		for n := max(sp[0], 0); n <= min(sp[1], MaxLines-1); n++ {
			s.add(n)
		}
	}
}

func (s lineSet) len() int {
	n := 0
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// spans returns the set as runs, in order.
func (s lineSet) spans() []span {
	var out []span
	for n := range len(s) * 64 {
		switch {
		case !s.has(n):
		case len(out) > 0 && out[len(out)-1][1] == n-1:
			out[len(out)-1][1] = n
		default:
			out = append(out, span{n, n})
		}
	}
	return out
}
