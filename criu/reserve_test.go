package criu_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// inMemory makes the place for images a tmpfs, where memory can be reserved.
func (b *box) inMemory() {
	b.t.Helper()
	dir := b.t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256m,huge=within_size"); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			b.t.Error(err)
		}
	})
	b.dir = dir
}

// build makes the box use another CRIU from here on.
func (b *box) build(name string) criu.Features {
	b.t.Helper()
	b.criu = criutest.Tool(b.t, name)
	b.kerndat = filepath.Join(b.t.TempDir(), "kerndat-"+name)
	f, err := criu.Probe(b.t.Context(), criu.ProbeOptions{Path: b.criu, Kerndat: b.kerndat})
	if err != nil {
		b.t.Fatal(err)
	}
	if f.Patched != (name == "criu") || strings.Contains(f.String(), "patched") != f.Patched {
		b.t.Fatalf("%s is %v, patched: %v", name, f, f.Patched)
	}
	return f
}

// dumpAgain dumps twice, with memory reserved as the first dump has shown.
func (b *box) dumpAgain() criu.DumpStats {
	b.t.Helper()
	b.dump()
	return b.dump(func(o *criu.DumpOptions) { o.Reserve, o.Previous = true, b.images })
}

// names are the kinds of the files of the last checkpoint.
func (b *box) names() []string {
	b.t.Helper()
	list, err := os.ReadDir(b.images)
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		// The numbers of some are those of inodes and of namespaces.
		name, _, _ := strings.Cut(e.Name(), "-")
		names = append(names, name)
	}
	return names
}

// TestBuilds dumps with each build of CRIU and restores with each: what the
// patched one writes is what the stock one writes, and either reads it.
func TestBuilds(t *testing.T) {
	b := start(t, criutest.NetNS(t), criutest.RedisArgs)
	b.inMemory()
	c := b.redis()
	value := strings.Repeat("0123456789abcdef", 1<<19)
	c.Do("SET", "large", value)
	var files []string
	for _, builds := range [][2]string{{"criu-stock", "criu-stock"}, {"criu", "criu-stock"}, {"criu-stock", "criu"}, {"criu", "criu"}} {
		t.Log(builds)
		var conns []*criutest.Redis
		for range 10 {
			conns = append(conns, b.redis(), criutest.DialRedis(t, b.pins.NetNS(), "[::1]:6379"))
		}
		for i, c := range conns {
			c.Do("SET", fmt.Sprint("key", i), builds[0])
		}
		b.build(builds[0])
		b.dumpAgain()
		if names := b.names(); files == nil {
			files = names
		} else if !slices.Equal(names, files) {
			t.Errorf("%s wrote %v, and another build %v", builds[0], names, files)
		}
		sockets, err := criu.TCPSockets(b.images)
		if err != nil {
			t.Fatal(err)
		}
		connected := 0
		for _, s := range sockets {
			if s.Connected() {
				connected++
			}
		}
		if connected != len(conns)+1 {
			t.Errorf("%s: %d connections in the images, want %d", builds[0], connected, len(conns)+1)
		}
		before := view(t, b.Pid)
		c.Do("SET", "large", "small")
		for _, c := range append(conns, c) {
			c.Reset()
		}
		b.Crash()
		b.build(builds[1])
		b.restore()
		sameView(t, before, view(t, b.Pid))
		c = b.redis()
		if got := c.Do("GET", "large"); got != value {
			t.Errorf("%v: the large value is %d bytes, want %d", builds, len(got), len(value))
		}
		for i := range conns {
			if got := c.Do("GET", fmt.Sprint("key", i)); got != builds[0] {
				t.Errorf("%v: key %d is %q", builds, i, got)
			}
		}
	}
}

// TestReserveIsTrimmed looks at what memory was reserved, and what is left of it.
func TestReserveIsTrimmed(t *testing.T) {
	// A limit of the task's own, which it must not meet.
	limited := func(s *specs.Spec) {
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_FSIZE", Soft: 1 << 20, Hard: 1 << 20})
	}
	for name, opts := range map[string][]criutest.SpecOpt{"unlimited": nil, "limited": {limited}} {
		t.Run(name, func(t *testing.T) {
			b := start(t, criutest.NetNS(t), criutest.RedisArgs, opts...)
			b.inMemory()
			c := b.redis()
			c.Do("SET", "large", strings.Repeat("x", 8<<20))
			b.dump()
			reserved := int64(0)
			for _, large := range []int{8 << 20, 16 << 20, 1 << 20} {
				c.Do("SET", "large", strings.Repeat("y", large))
				stats := b.dump(func(o *criu.DumpOptions) {
					o.Reserve = true
					o.OnPreDump = func() error {
						st, err := os.Stat(filepath.Join(o.Images, "pages-1.img"))
						if err == nil {
							reserved = st.Size()
						}
						return err
					}
				})
				st, err := os.Stat(filepath.Join(b.images, "pages-1.img"))
				if err != nil {
					t.Fatal(err)
				}
				if reserved <= st.Size() {
					t.Errorf("%d bytes were reserved, and %d are left", reserved, st.Size())
				}
				if want := int64(stats.Pages) * int64(os.Getpagesize()); st.Size() != want {
					t.Errorf("the image has %d bytes, and the dump wrote %d", st.Size(), want)
				}
			}
			c.Reset()
			b.Crash()
			b.restore()
			if got := b.redis().Do("GET", "large"); got != strings.Repeat("y", 1<<20) {
				t.Errorf("the value after the restore has %d bytes", len(got))
			}
		})
	}
}

// TestReserveForEachProcess reserves for the first checkpoint of several processes
// of different sizes what each needs.
func TestReserveForEachProcess(t *testing.T) {
	// A subshell is a process of its own between the init and a server.
	b := start(t, criutest.NetNS(t), []string{"/bin/sh", "-c", "redis-server --port 6380 --save '' & (redis-server --port 6381 --save '' & redis-server --port 6382 --save ''; :) & exec redis-server --save ''"})
	b.inMemory()
	sizes := map[int]int{6379: 4 << 20, 6380: 12 << 20, 6381: 1 << 20, 6382: 8 << 20}
	for port, size := range sizes {
		c := criutest.DialRedis(t, b.pins.NetNS(), fmt.Sprintf("127.0.0.1:%d", port))
		c.Do("SET", "large", strings.Repeat("x", size))
		defer c.Close()
	}
	var reserved []int64
	of := func(images string) []int64 {
		var sizes []int64
		for i := 1; ; i++ {
			st, err := os.Stat(filepath.Join(images, fmt.Sprintf("pages-%d.img", i)))
			if err != nil {
				return sizes
			}
			sizes = append(sizes, st.Size())
		}
	}
	b.dump(func(o *criu.DumpOptions) {
		o.Reserve = true
		o.OnPreDump = func() error {
			reserved = of(o.Images)
			return nil
		}
	})
	got := of(b.images)
	if len(got) < 5 || len(reserved) > len(got) {
		t.Fatalf("%d files were reserved and %d written, want those of five processes at least", len(reserved), len(got))
	}
	const slack = 2 << 20
	for i, size := range reserved {
		if size < got[i] || size > got[i]+got[i]/8+slack {
			t.Errorf("process %d: %d bytes were reserved and %d written (of %v and %v)", i, size, got[i], reserved, got)
		}
	}
}

// TestSlack: as much beyond what a task has as it grows, and little for one that
// stands still.
func TestSlack(t *testing.T) {
	for _, tc := range []struct{ size, before, want int64 }{
		{320 << 20, 0, 20 << 20},         // nothing is known of it
		{320 << 20, 320 << 20, 5 << 18},  // it stands still
		{320 << 20, 400 << 20, 5 << 18},  // it shrinks
		{320 << 20, 317 << 20, 6 << 20},  // it grows
		{320 << 20, 100 << 20, 20 << 20}, // faster than can be met
		{1 << 20, 1 << 20, 256 << 10},
		{1 << 20, 0, 256 << 10},
		{4096, 1 << 20, 256 << 10},
	} {
		if got := criu.Slack(tc.size, tc.before); got != tc.want {
			t.Errorf("slack(%d, %d) is %d, want %d", tc.size, tc.before, got, tc.want)
		}
	}
}

// TestReserveWithinLimits reserves nothing that there is no room for.
func TestReserveWithinLimits(t *testing.T) {
	b := start(t, criutest.NetNS(t), criutest.RedisArgs)
	b.inMemory()
	b.redis().Do("SET", "large", strings.Repeat("x", 8<<20))
	b.dump()
	for name, change := range map[string]func(*criu.DumpOptions){
		"no room":   func(o *criu.DumpOptions) { fillDisk(t, b.dir, 12<<20) },
		"a limit":   func(o *criu.DumpOptions) { o.ReserveMax = 1 << 20 },
		"not asked": func(o *criu.DumpOptions) { o.Reserve = false },
	} {
		b.dump(func(o *criu.DumpOptions) {
			o.Reserve = true
			change(o)
			o.OnPreDump = func() error {
				if st, err := os.Stat(filepath.Join(o.Images, "pages-1.img")); err == nil && st.Size() > 0 {
					t.Errorf("%s: %d bytes were reserved", name, st.Size())
				}
				return nil
			}
		})
		os.Remove(filepath.Join(b.dir, "filler"))
	}
}

// fillDisk leaves about left bytes of a file system.
func fillDisk(t *testing.T, dir string, left int64) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(fs.Bfree)*fs.Bsize-left); err != nil {
		t.Fatal(err)
	}
}

// TestReuse dumps into the memory of other images, which held more and of more
// tasks: none of that is left.
func TestReuse(t *testing.T) {
	b := start(t, criutest.NetNS(t), criutest.RedisArgs)
	b.inMemory()
	if f := b.build("criu"); !f.Patched {
		t.Fatalf("%v is not patched", f)
	}
	c := b.redis()
	c.Do("SET", "large", strings.Repeat("secret", 1<<20))
	b.dump()
	old := b.images
	for _, name := range []string{"pages-7.img", "pages-x.img"} {
		if err := os.WriteFile(filepath.Join(old, name), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(old, "core-1.img"), filepath.Join(b.dir, "linked")); err != nil {
		t.Fatal(err)
	}
	before := inodeOf(t, filepath.Join(old, "pages-1.img"))
	c.Do("SET", "large", "small")
	c.Do("SET", "kept", "value")
	var kept int64
	b.dump(func(o *criu.DumpOptions) {
		if err := os.Remove(o.Images); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(old, o.Images); err != nil {
			t.Fatal(err)
		}
		var err error
		if kept, err = criu.KeepPages(o.Images); err != nil {
			t.Fatal(err)
		}
		o.Reserve = true
	})
	if kept < 6<<20 {
		t.Errorf("%d bytes were kept", kept)
	}
	if inodeOf(t, filepath.Join(b.images, "pages-1.img")) != before {
		t.Error("the memory was not used again")
	}
	for _, name := range []string{"pages-7.img", "pages-x.img"} {
		if _, err := os.Lstat(filepath.Join(b.images, name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := criu.Validate(b.images); err != nil {
		t.Error(err)
	}
	c.Reset()
	b.Crash()
	b.restore()
	c = b.redis()
	if got := fmt.Sprint(c.Do("GET", "kept"), c.Do("GET", "large")); got != "valuesmall" && got != "value small" {
		t.Errorf("the restored Redis has %q", got)
	}
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
