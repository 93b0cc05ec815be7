package criu_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

func TestArmedIsGivenUp(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	b.dump()
	before := b.resources()
	for range 3 {
		a, err := criu.Arm(t.Context(), b.restoreOptions())
		if err != nil {
			b.fatal(err)
		}
		if got := c.Do("PING"); got != "PONG" {
			t.Errorf("PING beside an armed restore says %q", got)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	b.requireNoMore(before)
}

func TestArmedRefusesRunningContainer(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	b.dump()
	a, err := criu.Arm(t.Context(), b.restoreOptions())
	if err != nil {
		b.fatal(err)
	}
	if _, _, err := a.Restore(t.Context()); !errors.Is(err, criu.ErrRunning) {
		t.Errorf("error is %v", err)
	}
	if got := c.Do("PING"); got != "PONG" {
		t.Errorf("PING says %q", got)
	}
}

func TestRestoreFailsCleanly(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	b.redis().Reset()
	b.dump()
	b.Crash()
	before := b.resources()
	refuse := errors.New("refused")
	canceled, cancel := context.WithCancel(t.Context())
	for _, tc := range []struct {
		name   string
		change func(*criu.RestoreOptions)
		want   error
	}{
		{"hook", func(o *criu.RestoreOptions) { o.OnPostRestore = func(int) error { return refuse } }, refuse},
		{"canceled", func(o *criu.RestoreOptions) { o.OnPostRestore = func(int) error { cancel(); return canceled.Err() } }, context.Canceled},
		{"no images", func(o *criu.RestoreOptions) { o.Images = t.TempDir() }, os.ErrNotExist},
		{"file missing", func(o *criu.RestoreOptions) { o.Rootfs = t.TempDir() }, nil},
	} {
		o := b.restoreOptions()
		tc.change(&o)
		_, _, err := criu.Restore(t.Context(), o)
		if err == nil || (tc.want != nil && !errors.Is(err, tc.want)) {
			t.Errorf("%s: error is %v", tc.name, err)
		}
		var ce *criu.Error
		if tc.want == nil && (!errors.As(err, &ce) || ce.Line == "" || ce.Log == "") {
			t.Errorf("%s: %v has no log of CRIU", tc.name, err)
		} else if tc.want == nil {
			t.Logf("%s: %v", tc.name, err)
		}
	}
	b.requireNoMore(before)
	b.restore()
	if got := b.redis().Do("PING"); got != "PONG" {
		t.Errorf("PING says %q", got)
	}
}

// TestRestoreOfTornPages: what CRIU would wait for, or read for ever, is told at
// once, before and after CRIU has begun.
func TestRestoreOfTornPages(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	b.redis().Reset()
	b.dump()
	b.Crash()
	before := b.resources()
	path := filepath.Join(b.images, "pages-1.img")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := criu.Arm(t.Context(), b.restoreOptions())
	if err != nil {
		b.fatal(err)
	}
	if err := os.Truncate(path, int64(len(good)/2)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, _, err := a.Restore(ctx); !errors.Is(err, criu.ErrCorrupt) {
		t.Errorf("torn after arming: %v", err)
	}
	if _, _, err := criu.Restore(ctx, b.restoreOptions()); !errors.Is(err, criu.ErrCorrupt) || !strings.Contains(err.Error(), "pages-1.img") {
		t.Errorf("torn: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := criu.Restore(ctx, b.restoreOptions()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
	b.requireNoMore(before)
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	b.restore()
	if got := b.redis().Do("PING"); got != "PONG" {
		t.Errorf("PING says %q", got)
	}
}

// TestRestoreKilled kills CRIU while the processes are being made.
func TestRestoreKilled(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	b.redis().Reset()
	b.dump()
	b.Crash()
	before := b.resources()
	t.Cleanup(removeNew(t, os.TempDir()+"/.criu.mntns.*"))
	o := b.restoreOptions()
	o.OnPostRestore = func(pid int) error {
		return killSibling(t, pid)
	}
	if _, _, err := criu.Restore(t.Context(), o); err == nil {
		t.Error("no error")
	}
	b.requireNoMore(before)
	b.restore()
	if got := b.redis().Do("PING"); got != "PONG" {
		t.Errorf("PING says %q", got)
	}
}

// killSibling kills the other child of ours in the cgroup of a restored init:
// CRIU.
func killSibling(t testing.TB, pid int) error {
	t.Helper()
	for _, other := range cgroupProcs(t, cgroupOf(t, pid)) {
		if b, err := os.Readlink("/proc/" + other + "/exe"); err == nil && b == criutest.Tool(t, "criu") {
			return unix.Kill(atoi(t, other), unix.SIGKILL)
		}
	}
	return errors.New("no CRIU in the cgroup")
}

func cgroupProcs(t testing.TB, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// removeNew returns a function that removes the empty directories that match a
// pattern by then and did not before.
func removeNew(t testing.TB, pattern string) func() {
	t.Helper()
	list := func() []string {
		m, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	old := list()
	return func() {
		for _, dir := range list() {
			if !slices.Contains(old, dir) {
				_ = os.Remove(dir) // somebody else's is not empty
			}
		}
	}
}
