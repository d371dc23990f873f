package redisclient

// Text returns the i-th value of an HMGET, false if the field is absent.
func Text(v []any, i int) (string, bool) {
	if i >= len(v) {
		return "", false
	}
	s, ok := v[i].(string)
	return s, ok
}
