package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of /proc/<pid>/stat: USER_HZ, 100 on every Linux that
// Go runs on.
const clockTick = 10 * time.Millisecond

// CPU returns the processor time, user and system, that a process has used so
// far. It needs /proc.
func CPU(pid int) (time.Duration, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	// The second field is the name in parentheses and may hold anything.
	rest := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	const utime, stime = 14 - 3, 15 - 3 // counted from the third field
	if len(rest) <= stime {
		return 0, fmt.Errorf("read processor time: /proc/%d/stat has %d fields", pid, len(rest)+2)
	}
	var ticks int64
	for _, f := range [][]byte{rest[utime], rest[stime]} {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// Part is one process whose processor time is told apart.
type Part struct {
	Name string
	PID  int
}

// meter reads the processor time of parts, twice.
type meter struct {
	parts []Part
	began []time.Duration
}

func startMeter(parts []Part) (*meter, error) {
	m := &meter{parts: parts}
	for _, p := range parts {
		used, err := CPU(p.PID)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		m.began = append(m.began, used)
	}
	return m, nil
}

// stop returns what each part has used since the start.
func (m *meter) stop() ([]time.Duration, error) {
	out := make([]time.Duration, len(m.parts))
	for i, p := range m.parts {
		used, err := CPU(p.PID)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		out[i] = used - m.began[i]
	}
	return out, nil
}

// addTo adds what each part has used since the start to the sum of a side.
func (m *meter) addTo(sums map[string][]time.Duration, side string) error {
	used, err := m.stop()
	if err != nil {
		return err
	}
	if sums[side] == nil {
		sums[side] = make([]time.Duration, len(used))
	}
	for i := range used {
		sums[side][i] += used[i]
	}
	return nil
}
