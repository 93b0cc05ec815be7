package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// mutator does to a tree what applications do, and worse.
type mutator struct {
	t    testing.TB
	rng  *rand.Rand
	root string
	next int
}

func newMutator(t testing.TB, root string, seed uint64) *mutator {
	return &mutator{t: t, rng: rand.New(rand.NewPCG(seed, 1)), root: root}
}

// run does n operations. Those that the state of the tree forbids don't count.
func (m *mutator) run(n int) {
	m.t.Helper()
	ops := []func(files, dirs []string) error{
		m.create, m.create, m.modify, m.modify, m.appendTo, m.truncate, m.remove, m.remove,
		m.removeAll, m.recreateDir, m.rename, m.renameDir, m.replace, m.link, m.symlink, m.mkdir,
		m.chmod, m.chown, m.xattr, m.acl, m.capability, m.times, m.node, m.sparse, m.recreateLinked, m.swap,
	}
	for range n {
		files, dirs := m.list()
		if err := ops[m.rng.IntN(len(ops))](files, dirs); err != nil && !expected(err) {
			require.NoError(m.t, err)
		}
	}
}

// expected are the errors of doing senseless things.
func expected(err error) bool {
	for _, e := range []error{
		unix.ENOENT, unix.EEXIST, unix.ENOTEMPTY, unix.EXDEV, unix.EINVAL, unix.EISDIR,
		unix.ENOTDIR, unix.EPERM, unix.ELOOP, unix.ENXIO, unix.EMLINK, unix.ENOTSUP,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (m *mutator) list() (files, dirs []string) {
	err := filepath.WalkDir(m.root, func(path string, d fs.DirEntry, err error) error {
		if d.IsDir() {
			dirs = append(dirs, path)
		} else {
			files = append(files, path)
		}
		return err
	})
	require.NoError(m.t, err)
	return files, dirs
}

func pick(m *mutator, of []string) string {
	if len(of) == 0 {
		return filepath.Join(m.root, "nothing")
	}
	return of[m.rng.IntN(len(of))]
}

// name invents one, sometimes a strange one.
func (m *mutator) name(dirs []string) string {
	m.next++
	strange := []string{"", " ", "\n", "\xff\xfe", "…", "\\", "..x", "-rf", strings.Repeat("n", 255), "\x01", "="}
	prefixes := []string{"new", "new", "new", "new", "new", "new", "new", ".wh.", ".wh..wh."}
	name := fmt.Sprintf("%d%s", m.next, strange[m.rng.IntN(len(strange))])
	name = prefixes[m.rng.IntN(len(prefixes))] + name
	return filepath.Join(pick(m, dirs), name[:min(len(name), 255)])
}

func (m *mutator) bytes() []byte {
	sizes := []int{0, 1, 100, 4096, 5000, 70_000, 200_000, 600_000}
	b := make([]byte, sizes[m.rng.IntN(len(sizes))])
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return b
}

func regular(path string) error {
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return unix.EINVAL
	}
	return nil
}

func (m *mutator) create(_, dirs []string) error {
	return os.WriteFile(m.name(dirs), m.bytes(), os.FileMode(m.rng.IntN(0o1000)))
}

func (m *mutator) modify(files, _ []string) error {
	path := pick(m, files)
	if err := regular(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		b := m.bytes()
		_, err = f.WriteAt(b[:min(len(b), 1+m.rng.IntN(2000))], m.rng.Int64N(st.Size()+1))
	}
	return errors.Join(err, f.Close())
}

func (m *mutator) appendTo(files, _ []string) error {
	path := pick(m, files)
	if err := regular(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(m.bytes())
	return errors.Join(err, f.Close())
}

func (m *mutator) truncate(files, _ []string) error {
	path := pick(m, files)
	if err := regular(path); err != nil {
		return err
	}
	return os.Truncate(path, m.rng.Int64N(100_000))
}

func (m *mutator) remove(files, _ []string) error { return os.Remove(pick(m, files)) }

func (m *mutator) removeAll(_, dirs []string) error {
	if path := pick(m, dirs); path != m.root && m.rng.IntN(3) == 0 {
		return os.RemoveAll(path)
	}
	return nil
}

func (m *mutator) recreateDir(files, dirs []string) error {
	path := pick(m, dirs)
	if path == m.root {
		return nil
	}
	return errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o711), m.create(nil, []string{path}))
}

func (m *mutator) rename(files, dirs []string) error { return os.Rename(pick(m, files), m.name(dirs)) }

func (m *mutator) replace(files, _ []string) error { return os.Rename(pick(m, files), pick(m, files)) }

// renameDir moves one, as mv does: by copying where overlayfs refuses.
func (m *mutator) renameDir(_, dirs []string) error {
	from, to := pick(m, dirs), m.name(dirs)
	if from == m.root || strings.HasPrefix(to, from+"/") {
		return nil
	}
	err := os.Rename(from, to)
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	for _, e := range entries {
		if err == nil && !e.IsDir() {
			err = os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		}
	}
	return errors.Join(err, os.RemoveAll(from))
}

func (m *mutator) link(files, dirs []string) error { return os.Link(pick(m, files), m.name(dirs)) }

// recreateLinked makes one name of a file a link to another file.
func (m *mutator) recreateLinked(files, _ []string) error {
	a, b := pick(m, files), pick(m, files)
	if a == b {
		return nil
	}
	return errors.Join(os.Remove(a), os.Link(b, a))
}

// swap exchanges two names.
func (m *mutator) swap(files, dirs []string) error {
	all := append(files, dirs...)
	return unix.Renameat2(unix.AT_FDCWD, pick(m, all), unix.AT_FDCWD, pick(m, all), unix.RENAME_EXCHANGE)
}

func (m *mutator) symlink(_, dirs []string) error {
	targets := []string{"/etc/passwd", "../..", "nowhere", "/", "dir0"}
	return os.Symlink(targets[m.rng.IntN(len(targets))], m.name(dirs))
}

func (m *mutator) mkdir(_, dirs []string) error { return os.Mkdir(m.name(dirs), 0o750) }

func (m *mutator) chmod(files, dirs []string) error {
	path := pick(m, append(files, dirs...))
	if st, err := os.Lstat(path); err != nil || st.Mode()&fs.ModeSymlink != 0 {
		return err
	}
	return unix.Chmod(path, uint32(m.rng.IntN(0o10000)))
}

func (m *mutator) chown(files, dirs []string) error {
	return os.Lchown(pick(m, append(files, dirs...)), m.rng.IntN(70_000), m.rng.IntN(70_000))
}

func (m *mutator) xattr(files, dirs []string) error {
	path := pick(m, append(files, dirs...))
	names := []string{"user.a", "user.b", "trusted.c", "security.d", "user.=", "user.\xff\n", "trusted.overlay.opaque", "trusted.overlay.redirect"}
	name := names[m.rng.IntN(len(names))]
	if m.rng.IntN(3) == 0 {
		if err := unix.Lremovexattr(path, name); !errors.Is(err, unix.ENODATA) {
			return err
		}
		return nil
	}
	return unix.Lsetxattr(path, name, fmt.Append(nil, m.rng.IntN(1_000))[:m.rng.IntN(2)], 0)
}

// capability sets what setcap cap_net_raw=ep sets.
func (m *mutator) capability(files, _ []string) error {
	path := pick(m, files)
	if err := regular(path); err != nil {
		return err
	}
	return unix.Setxattr(path, "security.capability", []byte("\x01\x00\x00\x02\x00\x20"+strings.Repeat("\x00", 14)), 0)
}

// acl sets what setfacl -m u:1234:rw sets.
func (m *mutator) acl(files, dirs []string) error {
	acl := []byte("\x02\x00\x00\x00" +
		"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\xd2\x04\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" +
		"\x20\x00\x04\x00\xff\xff\xff\xff")
	if m.rng.IntN(2) == 0 {
		return unix.Setxattr(pick(m, dirs), "system.posix_acl_default", acl, 0)
	}
	path := pick(m, files)
	if err := regular(path); err != nil {
		return err
	}
	return unix.Setxattr(path, "system.posix_acl_access", acl, 0)
}

func (m *mutator) times(files, dirs []string) error {
	path := pick(m, append(files, dirs...))
	at := unix.NsecToTimespec(m.rng.Int64N(int64(2e18)))
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

func (m *mutator) node(_, dirs []string) error {
	nodes := []struct {
		typ uint32
		dev uint64
	}{{unix.S_IFIFO, 0}, {unix.S_IFSOCK, 0}, {unix.S_IFCHR, unix.Mkdev(1, 3)}, {unix.S_IFBLK, unix.Mkdev(7, 300)}}
	n := nodes[m.rng.IntN(len(nodes))]
	return unix.Mknod(m.name(dirs), n.typ|uint32(m.rng.IntN(0o1000)), int(n.dev))
}

// sparseReach is where the data of a sparse file may lie, in bytes.
const sparseReach = 1 << 27

func (m *mutator) sparse(files, dirs []string) error {
	path := m.name(dirs)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for range 1 + m.rng.IntN(4) {
		if err == nil {
			_, err = f.WriteAt(m.bytes(), m.rng.Int64N(sparseReach))
		}
	}
	if err == nil && m.rng.IntN(2) == 0 {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, m.rng.Int64N(sparseReach), 1<<20)
	}
	return errors.Join(err, f.Close())
}

// testSeed is LAYER_TEST_SEED, or one of the moment if that is "random". By
// default it is always the same: what a change broke must not depend on luck.
func testSeed(t testing.TB) uint64 {
	seed := uint64(2)
	switch s := os.Getenv("LAYER_TEST_SEED"); s {
	case "":
	case "random":
		seed = uint64(time.Now().UnixNano())
	default:
		_, err := fmt.Sscan(s, &seed)
		require.NoError(t, err)
	}
	t.Logf("LAYER_TEST_SEED=%d", seed)
	return seed
}
