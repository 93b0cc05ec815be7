package criu_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu/internal/criutest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestProcessTree restores an init with children, one of them started by exec
// and so no descendant of the init.
func TestProcessTree(t *testing.T) {
	b := start(t, "", []string{"/bin/sh", "-c", "sleep 1001 & (sleep 1002 & exec sleep 1003) & while :; do read line; echo got $line; done"})
	list := func() string {
		var names []string
		for _, pid := range cgroupProcs(t, cgroupOf(t, b.Pid)) {
			cmd, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err != nil {
				t.Fatal(err)
			}
			if words := strings.Split(string(cmd), "\x00"); words[0] == "sleep" {
				names = append(names, words[1])
			}
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	before := list()
	for deadline := time.Now().Add(criutest.Patience); len(strings.Fields(before)) != 3; before = list() {
		if time.Now().After(deadline) {
			t.Fatalf("processes are %q", before)
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.dump()
	b.Crash()
	b.restore()
	if after := list(); after != before {
		t.Errorf("processes were %q and are %q", before, after)
	}
	if _, err := b.Input.WriteString("x\n"); err != nil {
		t.Fatal(err)
	}
	b.WaitOutput("got x")
}

// TestDumpWithExec dumps a container while a process of an exec session runs.
func TestDumpWithExec(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	b.ExecDetached("/bin/sleep", "1000")
	if n := len(cgroupProcs(t, cgroupOf(t, b.Pid))); n != 2 {
		t.Fatalf("%d processes in the container, want 2", n)
	}
	b.dump()
	if n := len(cgroupProcs(t, cgroupOf(t, b.Pid))); n != 2 {
		t.Errorf("%d processes after the dump, want 2", n)
	}
	c.Reset()
	b.Crash()
	b.restore()
	if n := len(cgroupProcs(t, cgroupOf(t, b.Pid))); n != 1 {
		t.Errorf("%d processes after the restore, want the init", n)
	}
}

// TestTerminal restores a container with a terminal, and goes on typing into it.
func TestTerminal(t *testing.T) {
	b := start(t, "", []string{"/bin/sh", "-c", "while read line; do echo got $line; done"}, func(s *specs.Spec) { s.Process.Terminal = true })
	master := b.Master
	say := func(master *os.File, line string) {
		t.Helper()
		if _, err := master.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
		buf, got := make([]byte, 4096), ""
		for !strings.Contains(got, "got "+line) {
			n, err := master.Read(buf)
			if err != nil {
				t.Fatalf("terminal says %q: %v", got, err)
			}
			got += string(buf[:n])
		}
	}
	say(master, "one")
	for i := range 2 {
		b.dump()
		b.Crash()
		master.Close()
		o := b.restoreOptions()
		o.Stdio = [3]*os.File{}
		o.OnConsole = func(m *os.File) error { master = m; return nil }
		b.restoreWith(o)
		say(master, fmt.Sprintf("again%d", i))
	}
	master.Close()
}
