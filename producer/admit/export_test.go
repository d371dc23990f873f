package admit

// Tenants returns how many tenants are remembered.
func (l *Limits) Tenants() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tenants)
}
