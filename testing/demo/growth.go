package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/crsc-io/crsc/testing/env"
)

// measure is one thing that must not grow with the number of recoveries.
type measure struct {
	what  string
	slack int64 // growth that is no growth
	part  int64 // the same, as a part of the early value; 0: none
	read  func(w *watch, s status) (int64, error)
}

func measures() []measure {
	return []measure{
		{"resident memory of the shim (bytes)", 16 << 20, 4, (*watch).residentMemory},
		{"descriptors of the shim", 4, 0, (*watch).descriptors},
		{"threads of the shim", 4, 0, (*watch).threads},
		{"goroutines of the shim", 4, 0, func(_ *watch, s status) (int64, error) { return int64(s.Goroutines), nil }},
		{"mounts", 0, 0, (*watch).mounts},
		{"disk used by checkpoints and journals (bytes)", 32 << 20, 4, (*watch).disk},
	}
}

// watch samples the shim after each recovery. A nil watch does nothing.
type watch struct {
	env     *env.Env
	shim    int
	samples [][]int64 // by measure
}

// Growth compares the medians of an early and the last quarter of the samples.
type Growth struct {
	What    string `json:"what"`
	Early   int64  `json:"early"`
	Late    int64  `json:"late"`
	TooMuch bool   `json:"too_much"`
}

func newWatch(e *env.Env) (*watch, error) {
	shim, err := e.Shim(containerID)
	if err != nil {
		return nil, err
	}
	return &watch{env: e, shim: shim, samples: make([][]int64, len(measures()))}, nil
}

func (w *watch) sample(statusFile string) error {
	if w == nil {
		return nil
	}
	s, err := readStatus(statusFile)
	if err != nil {
		return err
	}
	for i, m := range measures() {
		v, err := m.read(w, s)
		if err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		w.samples[i] = append(w.samples[i], v)
	}
	return nil
}

// growth leaves the first quarter out: caches fill and pools grow there. With
// fewer than eight samples nothing can be said.
func (w *watch) growth() []Growth {
	if w == nil {
		return nil
	}
	var out []Growth
	for i, m := range measures() {
		n := len(w.samples[i])
		if n < 8 {
			continue
		}
		g := Growth{What: m.what, Early: median(w.samples[i][n/4 : n/2]), Late: median(w.samples[i][n-n/4:])}
		allowed := m.slack
		if m.part > 0 {
			allowed = max(allowed, g.Early/m.part)
		}
		g.TooMuch = g.Late-g.Early > allowed
		out = append(out, g)
	}
	return out
}

func median(v []int64) int64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func (w *watch) residentMemory(status) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.shim))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

func (w *watch) descriptors(status) (int64, error) { return w.entries("fd") }
func (w *watch) threads(status) (int64, error)     { return w.entries("task") }

func (w *watch) entries(dir string) (int64, error) {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", w.shim, dir))
	return int64(len(list)), err
}

func (w *watch) mounts(status) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", w.shim))
	return int64(strings.Count(string(data), "\n")), err
}

// disk counts blocks, not lengths: journal segments are preallocated.
func (w *watch) disk(status) (total int64, err error) {
	err = filepath.WalkDir(w.env.StateDir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a checkpoint that was dropped meanwhile
		}
		if err != nil {
			return err
		}
		st, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			total += sys.Blocks * 512
		}
		return nil
	})
	return total, err
}
