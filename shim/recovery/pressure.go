package recovery

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/internal/cgroups"
	"github.com/crsc-io/crsc/status"
)

const (
	// pressureAgain is between two checkpoints while the pressure lasts: the
	// later one is the better one, as long as there is one.
	pressureAgain = 10 * time.Second
	// relief is the fraction of a threshold below which pressure is over.
	relief = 0.9
)

// pressure tells when a container is short of memory.
type pressure struct {
	limits config.Pressure

	on     bool
	last   time.Time // when it was told
	looked bool
	seen   level
}

// level is how short of memory a container is.
type level struct {
	memory  float64 // working set in percent of the limit; meaningless without
	limited bool    // there is a limit
	stalled float64 // percent of the last ten seconds in which somebody waited
	source  string  // of stalled: the cgroup or the host; empty: the kernel has none
}

// look takes a measurement; a cause says that it asks for a checkpoint.
func (p *pressure) look(now time.Time, l level) (cause string) {
	p.looked, p.seen = true, l
	short := l.limited && p.limits.Memory > 0 && l.memory >= p.limits.Memory
	stalls := l.source != "" && p.limits.Stalled > 0 && l.stalled >= p.limits.Stalled
	switch {
	case !short && !stalls:
		eased := !l.limited || l.memory < relief*p.limits.Memory || p.limits.Memory == 0
		if eased && l.stalled <= relief*p.limits.Stalled {
			p.on = false
		}
		return ""
	case p.on && now.Sub(p.last) < pressureAgain:
		return ""
	}
	p.on, p.last = true, now
	if short {
		return fmt.Sprintf("memory at %.0f%% of its limit", l.memory)
	}
	return fmt.Sprintf("processes wait for memory %.0f%% of the time (%s)", l.stalled, l.source)
}

// status is nil before the first look.
func (p *pressure) status() *status.Pressure {
	if !p.looked {
		return nil
	}
	st := &status.Pressure{StalledPercent: p.seen.stalled, StalledSource: p.seen.source}
	if p.seen.limited {
		st.MemoryPercent = &p.seen.memory
	}
	switch {
	case p.limits.Memory > 0 && !p.seen.limited:
		st.Reason = "the container has no memory limit"
	case p.limits.Stalled > 0 && p.seen.source == "":
		st.Reason = "the kernel has no pressure stall information"
	case p.limits.Stalled > 0 && p.seen.source == sourceHost:
		st.Reason = "the kernel has no pressure stall information for this cgroup: that of the whole host is watched"
	}
	return st
}

// Sources of the time spent waiting for memory.
const (
	sourceCgroup = "cgroup"
	sourceHost   = "host"
)

// memoryFiles are where the kernel tells about a container's memory. An empty
// path means that it does not.
type memoryFiles struct {
	usage, limit, stat string
	inactive           string // key in stat
	stalls, source     string
}

// findMemoryFiles looks for the files about the cgroups; host is the kernel's
// pressure information for the whole host.
func findMemoryFiles(paths cgroups.Paths, host string) memoryFiles {
	m := memoryFiles{}
	if dir := paths.V1("memory"); dir != "" {
		m.usage, m.limit = filepath.Join(dir, "memory.usage_in_bytes"), filepath.Join(dir, "memory.limit_in_bytes")
		m.stat, m.inactive = filepath.Join(dir, "memory.stat"), "total_inactive_file"
	}
	if dir := paths.V2(); dir != "" {
		if exists(filepath.Join(dir, "memory.pressure")) {
			m.stalls, m.source = filepath.Join(dir, "memory.pressure"), sourceCgroup
		}
		if m.usage == "" && exists(filepath.Join(dir, "memory.current")) {
			m.usage, m.limit = filepath.Join(dir, "memory.current"), filepath.Join(dir, "memory.max")
			m.stat, m.inactive = filepath.Join(dir, "memory.stat"), "inactive_file"
		}
	}
	if m.stalls == "" && exists(host) {
		m.stalls, m.source = host, sourceHost
	}
	return m
}

// memoryFilesOf finds the files of a process's cgroups.
func memoryFilesOf(pid int) (memoryFiles, error) {
	paths, err := cgroups.Of(pid)
	if err != nil {
		return memoryFiles{}, err
	}
	return findMemoryFiles(paths, "/proc/pressure/memory"), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// read measures. above is the percentage from which on the working set is of
// interest: telling it from the page cache costs the kernel more than the rest.
func (m *memoryFiles) read(above float64) (level, error) {
	var l level
	if m.usage != "" {
		usage, err := readCount(m.usage)
		if err != nil {
			return l, err
		}
		limit, err := readCount(m.limit)
		if err != nil {
			return l, err
		}
		// Version 1 writes "none" as the largest number of whole pages.
		if limit > 0 && limit < 1<<62 {
			l.limited, l.memory = true, 100*float64(usage)/float64(limit)
			if l.memory >= above {
				inactive, err := readField(m.stat, m.inactive)
				if err != nil {
					return l, err
				}
				l.memory = 100 * float64(usage-min(usage, inactive)) / float64(limit)
			}
		}
	}
	if m.stalls == "" {
		return l, nil
	}
	stalled, err := readStalls(m.stalls)
	if errors.Is(err, fs.ErrNotExist) || err == nil {
		l.stalled, l.source = stalled, m.source
		return l, err
	}
	return l, nil // pressure accounting is there, and switched off
}

// readCount reads a file with one number; "max" is the largest.
func readCount(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	text := string(bytes.TrimSpace(b))
	if text == "max" {
		return 1<<64 - 1, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// readField reads one line of a file of names and numbers.
func readField(path, name string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			v, _, _ = bytes.Cut(bytes.TrimSpace(v), []byte(" ")) // a unit, in /proc/meminfo
			return strconv.ParseUint(string(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: no %s", path, name)
}

// readStalls reads "some avg10" of a pressure file, in percent.
func readStalls(path string) (float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "some avg10="); ok {
			value, _, _ := strings.Cut(rest, " ")
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("%s: no avg10", path)
}
