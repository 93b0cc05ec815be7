package criu_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// box is a running container with its pins and its last checkpoint.
type box struct {
	*criutest.Container
	t       testing.TB
	criu    string
	pins    *criu.Pins
	images  string // of the last checkpoint
	dir     string // where the images are made
	n       int
	kerndat string // as of Probe
}

// start runs args in a container of its own, in the network namespace at netns
// or, if that is empty, in one that runc makes.
func start(t testing.TB, netns string, args []string, opts ...criutest.SpecOpt) *box {
	t.Helper()
	if netns != "" {
		opts = append(opts, criutest.InNamespace(specs.NetworkNamespace, netns))
	}
	b := &box{t: t, criu: criutest.Tool(t, "criu"), dir: t.TempDir()}
	b.kerndat = filepath.Join(b.dir, "kerndat")
	if _, err := criu.Probe(t.Context(), criu.ProbeOptions{Path: b.criu, Kerndat: b.kerndat}); err != nil {
		t.Fatal(err)
	}
	b.Container = criutest.Create(t, criutest.Rootfs(t), args, opts...)
	pins, err := criu.Pin(b.Pid, b.Spec, filepath.Join(b.dir, "pins"))
	if err != nil {
		t.Fatal(err)
	}
	b.pins = pins
	t.Cleanup(func() {
		if err := pins.Close(); err != nil {
			t.Error(err)
		}
	})
	if netns == "" {
		criutest.LoopbackUp(t, pins.NetNS())
	}
	b.Start()
	return b
}

// redis connects to the container's Redis.
func (b *box) redis() *criutest.Redis {
	b.t.Helper()
	return criutest.DialRedis(b.t, b.pins.NetNS(), "127.0.0.1:6379")
}

// dump takes a checkpoint and makes it the one to restore; in a further attempt if
// a client acknowledged a reply while CRIU read the queue that it was in.
func (b *box) dump(change ...func(*criu.DumpOptions)) criu.DumpStats {
	b.t.Helper()
	stats, err := b.tryDump(context.Background(), change...)
	for range 5 {
		var e *criu.Error
		if !errors.As(err, &e) || !strings.Contains(e.Line, "soccr/soccr.c") {
			break
		}
		b.t.Log(e.Line)
		stats, err = b.tryDump(context.Background(), change...)
	}
	if err != nil {
		b.fatal(err)
	}
	return stats
}

func (b *box) tryDump(ctx context.Context, change ...func(*criu.DumpOptions)) (criu.DumpStats, error) {
	b.t.Helper()
	b.n++
	dir := filepath.Join(b.dir, "images"+strconv.Itoa(b.n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	o := criu.DumpOptions{Path: b.criu, Root: b.Root, ID: b.ID, Pins: b.pins, Images: dir, Kerndat: b.kerndat}
	for _, c := range change {
		c(&o)
	}
	stats, err := criu.Dump(ctx, o)
	if err != nil {
		os.RemoveAll(dir)
		return stats, err
	}
	if b.images != "" {
		os.RemoveAll(b.images)
	}
	b.images = dir
	return stats, nil
}

// restoreOptions are those of the last checkpoint.
func (b *box) restoreOptions() criu.RestoreOptions {
	return criu.RestoreOptions{Path: b.criu, Root: b.Root, ID: b.ID, Rootfs: b.Rootfs(), Pins: b.pins, Images: b.images, Stdio: b.Stdio, Kerndat: b.kerndat}
}

// restore restores the last checkpoint.
func (b *box) restore() criu.RestoreStats {
	b.t.Helper()
	return b.restoreWith(b.restoreOptions())
}

func (b *box) restoreWith(o criu.RestoreOptions) criu.RestoreStats {
	b.t.Helper()
	pid, stats, err := criu.Restore(context.Background(), o)
	if err != nil {
		b.fatal(err)
	}
	b.Pid = pid
	return stats
}

// fatal fails the test with the whole log of CRIU.
func (b *box) fatal(err error) {
	b.t.Helper()
	var e *criu.Error
	if errors.As(err, &e) {
		b.t.Fatalf("%v\n%s", err, e.Log)
	}
	b.t.Fatal(err)
}

// mountIDs matches what differs between two mounts of the same thing: their
// numbers, and the device numbers of file systems that are made anew.
var mountIDs = regexp.MustCompile(`^\d+ \d+ \d+:\d+ `)

// view returns what a process sees of its surroundings, for comparison.
func view(t testing.TB, pid int) map[string]string {
	t.Helper()
	v := map[string]string{}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(mountIDs.ReplaceAllString(line, ""))
		v["mount "+f[1]] += strings.Join(f, " ") + "\n"
	}
	if b, err = os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err != nil {
		t.Fatal(err)
	}
	v["cgroup"] = string(b)
	for _, ns := range []string{"net", "ipc", "uts", "cgroup", "user"} {
		if v["namespace "+ns], err = os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns)); err != nil {
			t.Fatal(err)
		}
	}
	for _, fd := range []string{"0", "1", "2"} {
		v["descriptor "+fd], _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd))
	}
	if b, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Threads", "SigBlk", "SigIgn", "SigCgt", "Umask":
			v[key] = strings.TrimSpace(value)
		}
	}
	if v["root"], err = os.Readlink(fmt.Sprintf("/proc/%d/root", pid)); err != nil {
		t.Fatal(err)
	}
	oom, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	v["oom_score_adj"] = strings.TrimSpace(string(oom))
	return v
}

// sameView fails the test for each difference between two views.
func sameView(t testing.TB, before, after map[string]string) {
	t.Helper()
	for key, was := range before {
		if is := after[key]; is != was {
			t.Errorf("%s after the restore:\n%s\nbefore:\n%s", key, is, was)
		}
	}
	for key, is := range after {
		if _, ok := before[key]; !ok {
			t.Errorf("%s is new after the restore: %s", key, is)
		}
	}
}
