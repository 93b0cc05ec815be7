package criu_test

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	file_lock "github.com/checkpoint-restore/go-criu/v7/crit/images/file-lock"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fsnotify"
	ghost_file "github.com/checkpoint-restore/go-criu/v7/crit/images/ghost-file"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mnt"
	remap_file_path "github.com/checkpoint-restore/go-criu/v7/crit/images/remap-file-path"
	sk_unix "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-unix"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/crsc-io/crsc/criu"
)

// forge changes each entry of an image, and returns how to undo it. An image that
// is not there is made, of one entry, with the magic.
func forge[M proto.Message](t *testing.T, path string, entry M, magic uint32, change func(M)) (undo func()) {
	t.Helper()
	good, err := os.ReadFile(path)
	absent := errors.Is(err, os.ErrNotExist)
	if err != nil && !absent {
		t.Fatal(err)
	}
	bad := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 0x54564319), magic)
	put := func() {
		change(entry)
		b, err := proto.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		bad = append(binary.NativeEndian.AppendUint32(bad, uint32(len(b))), b...)
	}
	if absent {
		put()
	} else {
		bad = slices.Clone(good[:8])
		for rest := good[8:]; len(rest) > 0; {
			n := binary.NativeEndian.Uint32(rest)
			proto.Reset(entry)
			if err := proto.Unmarshal(rest[4:4+n], entry); err != nil {
				t.Fatal(err)
			}
			rest = rest[4+n:]
			put()
		}
	}
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		err := os.WriteFile(path, good, 0o600)
		if absent {
			err = os.Remove(path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestForgedImages: what the owner of images could have CRIU, the host's root, do
// for them is refused before.
func TestForgedImages(t *testing.T) {
	volume := t.TempDir()
	for name, mode := range map[string]os.FileMode{"mine": 0o666, "theirs": 0o600} {
		path := filepath.Join(volume, name)
		if err := errors.Join(os.WriteFile(path, nil, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	b := start(t, "", shell("exec 7>>/volume/mine && "), func(s *specs.Spec) {
		s.Process.User, s.Process.NoNewPrivileges, s.Process.Capabilities = specs.User{UID: 1000, GID: 1000}, true, &specs.LinuxCapabilities{}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/volume", Type: "bind", Source: volume, Options: []string{"rbind", "rw"}})
	})
	b.WaitOutput("ready")
	b.dump()
	f := &forger{T: t, box: b}
	f.good()
	f.files()
	f.others()
	f.good()
}

type forger struct {
	*testing.T
	*box
}

func (f *forger) path(name string) string {
	f.Helper()
	list, err := filepath.Glob(filepath.Join(f.images, name))
	if err != nil || len(list) == 0 {
		return filepath.Join(f.images, name)
	}
	return list[0]
}

// good: the images are as they were made.
func (f *forger) good() {
	f.Helper()
	c, err := criu.ReadContents(f.images, f.Spec.Linux.MaskedPaths)
	if err != nil || len(c.Needs) > 0 || !slices.Contains(c.Opened, criu.Opened{Path: "/volume/mine", Write: true}) {
		f.Fatalf("%v: %+v", err, c)
	}
	mounts, err := f.pins.MountTable(f.Pid, f.Spec.Linux.MaskedPaths)
	if err != nil || !slices.Equal(mounts, c.Mounts) {
		f.Errorf("mounts\n%q, the kernel says\n%q %v", c.Mounts, mounts, err)
	}
	if not, err := f.pins.MayOpen(f.Pid, criu.User{UID: 1000, GID: 1000}, c.Opened); err != nil || not != (criu.Opened{}) {
		f.Errorf("user 1000 may not open %+v: %v", not, err)
	}
}

// corrupt: the images are refused, saying so.
func (f *forger) corrupt(says string, undo func()) {
	f.Helper()
	defer undo()
	if _, err := criu.ReadContents(f.images, nil); !errors.Is(err, criu.ErrCorrupt) || !strings.Contains(err.Error(), says) {
		f.Errorf("%v, want %q", err, says)
	}
}

// needs: the images are for containers with a capability.
func (f *forger) needs(capability string, undo func()) {
	f.Helper()
	defer undo()
	if c, err := criu.ReadContents(f.images, nil); err != nil || !slices.Equal(slices.Collect(maps.Keys(c.Needs)), []string{capability}) {
		f.Errorf("%v: %+v, want %s", err, c, capability)
	}
}

// entry changes the open file of the container.
func (f *forger) entry(change func(e *fdinfo.FileEntry)) func() {
	return forge(f.T, f.path("files.img"), &fdinfo.FileEntry{}, 0x56303138, func(e *fdinfo.FileEntry) {
		if e.GetReg().GetName() == "/volume/mine" {
			change(e)
		}
	})
}

func (f *forger) files() {
	named := func(name string) func() {
		return f.entry(func(e *fdinfo.FileEntry) { e.Reg.Name = proto.String(name) })
	}
	for _, name := range []string{"", "relative", "/volume/../etc/shadow", "/volume//mine", "/a\x00b"} {
		f.corrupt("open file with the path", named(name))
	}
	for _, name := range []string{"/proc/self/fd/126/x", "/proc/1/fd/126", "/proc/1/root", "/proc/1/task/1/cwd/x", "/proc/1/map_files/1-2", "/proc/thread-self/maps"} {
		f.corrupt("a link of procfs", named(name))
	}
	for _, flag := range []uint32{unix.O_TRUNC, unix.O_CREAT, unix.O_EXCL} {
		f.corrupt("made or truncated", f.entry(func(e *fdinfo.FileEntry) { e.Reg.Flags = proto.Uint32(e.Reg.GetFlags() | flag) }))
	}
	f.corrupt("from outside", f.entry(func(e *fdinfo.FileEntry) { e.Reg.Ext = proto.Bool(true) }))
	f.corrupt("plugin", f.entry(func(e *fdinfo.FileEntry) { e.Type = fdinfo.FdTypes_EXT.Enum() }))
	socket := func(name, dir string, flags uint32) func() {
		return f.entry(func(e *fdinfo.FileEntry) {
			e.Type, e.Reg, e.Usk = fdinfo.FdTypes_UNIXSK.Enum(), nil, forgedSocket(name, dir, flags)
		})
	}
	f.corrupt("unix socket with the path", socket("/a/../b", "/", 0))
	f.corrupt("directory of a socket", socket("s", "/a/..", 0))
	f.corrupt("unix socket with the path", socket("../s", "/a", 0))
	f.corrupt("link of procfs", socket("/proc/self/root/s", "/", 0))

	// Rights of the user, which CRIU would not ask for.
	for _, forge := range []func() func(){
		func() func() { return named("/volume/theirs") },
		func() func() { return socket("theirs", "/volume", 1) },
		func() func() { return socket("/volume/s", "/", 0) },
	} {
		undo := forge()
		c, err := criu.ReadContents(f.images, nil)
		if err != nil {
			f.Fatal(err)
		}
		if not, err := f.pins.MayOpen(f.Pid, criu.User{UID: 1000, GID: 1000}, c.Opened); err != nil || !strings.HasPrefix(not.Path, "/volume") {
			f.Errorf("user 1000 may open %+v: %v", c.Opened, err)
		}
		const override = 1 << 1
		if not, err := f.pins.MayOpen(f.Pid, criu.User{UID: 1000, GID: 1000, Capabilities: override}, c.Opened); err != nil || not != (criu.Opened{}) {
			f.Errorf("with CAP_DAC_OVERRIDE user 1000 may not open %+v: %v", not, err)
		}
		undo()
	}
}

func forgedSocket(name, dir string, flags uint32) *sk_unix.UnixSkEntry {
	s := &sk_unix.UnixSkEntry{}
	complete(s.ProtoReflect())
	s.Name, s.NameDir, s.Uflags = []byte(name+"\x00"), proto.String(dir), proto.Uint32(flags)
	return s
}

func (f *forger) others() {
	init := f.path("mm-1.img")
	f.corrupt("made or truncated", forge(f.T, init, &mm.MmEntry{}, 0x57492820, func(e *mm.MmEntry) {
		for _, v := range e.GetVmas() {
			v.Fdflags = proto.Uint32(v.GetFdflags() | unix.O_TRUNC)
		}
	}))
	f.corrupt("is a link of", forge(f.T, f.path("remap-fpath.img"), &remap_file_path.RemapFilePathEntry{}, 0x59133954, func(e *remap_file_path.RemapFilePathEntry) {
		e.OrigId, e.RemapId, e.RemapType = proto.Uint32(1), proto.Uint32(2), remap_file_path.RemapType_LINKED.Enum()
	}))
	f.needs("CAP_MKNOD", forge(f.T, f.path("ghost-file-1.img"), &ghost_file.GhostFileEntry{}, 0x52583605, func(e *ghost_file.GhostFileEntry) {
		e.Uid, e.Gid, e.Mode, e.Rdev = proto.Uint32(1000), proto.Uint32(1000), proto.Uint32(unix.S_IFBLK|0o666), proto.Uint32(0x800)
	}))
	f.needs("CAP_LEASE", forge(f.T, f.path("filelocks.img"), &file_lock.FileLockEntry{}, 0x54323616, func(e *file_lock.FileLockEntry) {
		complete(e.ProtoReflect())
		e.Flag = proto.Uint32(8)
	}))
	f.needs("CAP_DAC_READ_SEARCH", f.entry(func(e *fdinfo.FileEntry) {
		e.Type, e.Reg, e.Ify = fdinfo.FdTypes_INOTIFY.Enum(), nil, &fsnotify.InotifyFileEntry{}
		complete(e.Ify.ProtoReflect())
		wd := &fsnotify.InotifyWdEntry{}
		complete(wd.ProtoReflect())
		e.Ify.Wd = []*fsnotify.InotifyWdEntry{wd}
	}))
	undo := forge(f.T, f.path("core-1.img"), &criu_core.CoreEntry{}, 0x55053847, func(e *criu_core.CoreEntry) {
		e.ThreadCore.Creds.Secbits = proto.Uint32(5)
	})
	if c, err := criu.ReadContents(f.images, nil); err != nil || c.Rights[0].SecureBits != 5 {
		f.Errorf("%v: %+v", err, c)
	}
	undo()
	// What hides the settings of the kernel would be below procfs, and not on it.
	undo = forge(f.T, f.path("mountpoints-*.img"), &mnt.MntEntry{}, 0x55563928, func(e *mnt.MntEntry) {
		if strings.HasSuffix(e.GetMountpoint(), "/proc/sys") {
			e.ParentMntId = proto.Uint32(rootMount(f.T, f.path("mountpoints-*.img")))
		}
	})
	c, err := criu.ReadContents(f.images, f.Spec.Linux.MaskedPaths)
	if err != nil {
		f.Fatal(err)
	}
	mounts, err := f.pins.MountTable(f.Pid, f.Spec.Linux.MaskedPaths)
	if err != nil || slices.Equal(mounts, c.Mounts) || len(mounts) != len(c.Mounts) {
		f.Errorf("/proc/sys beneath /proc is like on it: %q %v", c.Mounts, err)
	}
	undo()
}

// complete sets the fields that are required.
func complete(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Cardinality() != protoreflect.Required || m.Has(f) {
			continue
		}
		m.Set(f, m.NewField(f))
		if f.Message() != nil {
			complete(m.Mutable(f).Message())
		}
	}
}

// rootMount is the number of the mount at /.
func rootMount(t *testing.T, path string) (id uint32) {
	forge(t, path, &mnt.MntEntry{}, 0, func(e *mnt.MntEntry) {
		if e.GetMountpoint() == "./" || e.GetMountpoint() == "/" {
			id = e.GetMntId()
		}
	})()
	return id
}
