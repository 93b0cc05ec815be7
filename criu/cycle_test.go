package criu_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// resources counts what checkpoints and restores of a box might leave behind.
func (b *box) resources() map[string]int {
	t := b.t
	t.Helper()
	count := func(pattern string) int {
		m, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		return len(m)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	children := 0
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		list, _ := os.ReadFile(task) // threads end meanwhile
		for _, pid := range strings.Fields(string(list)) {
			// Orphans that have ended come to us, as to any subreaper.
			if !strings.Contains(status(atoi(t, pid)), "State:\tZ") {
				children++
			}
		}
	}
	ours := 0
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, b.dir) || strings.Contains(line, b.Bundle) {
			ours++
		}
	}
	return map[string]int{
		"mounts":                ours,
		"open files":            count("/proc/self/fd/*"),
		"cgroups":               count("/sys/fs/cgroup/*/" + b.ID),
		"children":              children,
		"CRIU's directories":    count(os.TempDir() + "/.criu.*"),
		"CRIU's abstract names": abstractNames(t),
	}
}

// requireNoMore fails the test if there is more now than there was. Threads and
// their files come and go, and so does what other CRIUs on the machine make.
func (b *box) requireNoMore(before map[string]int) {
	b.t.Helper()
	var more []string
	for deadline := time.Now().Add(criutest.Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		more = nil
		for what, n := range b.resources() {
			if n > before[what]+2 {
				more = append(more, fmt.Sprintf("%s: %d before, %d after", what, before[what], n))
			}
		}
		if more == nil {
			return
		}
	}
	b.t.Errorf("left: %q", more)
}

func abstractNames(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "@/crtools") + strings.Count(string(b), "@criu")
}

// TestCycles crashes and restores one container again and again.
func TestCycles(t *testing.T) {
	cycles := 100
	if testing.Short() {
		cycles = 5
	}
	netns := criutest.NetNS(t)
	b := start(t, netns, criutest.RedisArgs)
	b.redis().Reset()
	b.dump()
	b.Crash()
	b.restore()
	before := b.resources()
	stateFiles := len(readDir(t, filepath.Join(b.Root, b.ID)))
	for i := range cycles {
		c := b.redis()
		if got, want := c.Do("INCR", "n"), strconv.Itoa(i+1); got != want {
			t.Fatalf("cycle %d: INCR says %s", i, got)
		}
		b.dump()
		c.Do("INCR", "n") // rolled back
		c.Reset()
		if i%2 == 0 {
			b.Crash()
			b.restore()
			continue
		}
		a, err := criu.Arm(t.Context(), b.restoreOptions())
		if err != nil {
			b.fatal(err)
		}
		b.Crash()
		pid, _, err := a.Restore(t.Context())
		if err != nil {
			b.fatal(err)
		}
		b.Pid = pid
	}
	b.requireNoMore(before)
	if n := len(readDir(t, filepath.Join(b.Root, b.ID))); n != stateFiles {
		t.Errorf("runc's state directory had %d files, has %d", stateFiles, n)
	}
}

func readDir(t testing.TB, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
