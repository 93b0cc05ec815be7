package layer

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	usersBefore = 300_000
	usersAfter  = 700_000
)

var laterOwners = &Owners{
	UIDs: []OwnerRange{{usersBefore, usersAfter, 1 << 16}}, GIDs: []OwnerRange{{usersBefore + 1000, usersAfter, 100}},
}

// ownedTree makes a tree whose users begin with uid, and its groups with gid.
func ownedTree(t *testing.T, uid, gid int) string {
	t.Helper()
	root := t.TempDir()
	le := binary.LittleEndian
	for name, id := range map[string]int{".": 0, "a": 0, "dir": 7, "dir/b": 33, "dir/link": 44} {
		path := filepath.Join(root, name)
		var err error
		switch {
		case name == "dir":
			err = os.MkdirAll(path, 0o700)
		case name == "dir/link":
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
			err = os.Symlink("b", path)
		case name != ".":
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
			err = os.WriteFile(path, []byte(name), 0o600)
		}
		require.NoError(t, err)
		require.NoError(t, os.Lchown(path, uid+id, gid+id))
		if name != "dir/link" {
			require.NoError(t, os.Chmod(path, 0o750|os.ModeSetuid))
		}
	}
	capability := make([]byte, 24)
	le.PutUint32(capability, 0x03000001)
	le.PutUint32(capability[4:], 1<<unix.CAP_NET_BIND_SERVICE)
	le.PutUint32(capability[20:], uint32(uid))
	require.NoError(t, unix.Setxattr(filepath.Join(root, "a"), "security.capability", capability, 0))
	acl := le.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, ^uint32(0)}, {0x02, 4, uint32(uid + 5)}, {0x04, 4, ^uint32(0)}, {0x08, 4, uint32(gid + 6)}, {0x10, 4, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		acl = le.AppendUint32(le.AppendUint16(le.AppendUint16(acl, e.tag), e.perm), e.id)
	}
	require.NoError(t, unix.Setxattr(filepath.Join(root, "dir/b"), "system.posix_acl_access", acl, 0))
	for _, name := range []string{"a", "dir/b", "dir/link", "dir", "."} {
		at := unix.NsecToTimespec(1e18)
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, name), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
	return root
}

// TestRollbackAs: a tree of other users becomes what it would have been, had they
// made it. That holds for an empty tree and for one that has the same files.
func TestRollbackAs(t *testing.T) {
	needRoot(t)
	snap := filepath.Join(t.TempDir(), "snap")
	mustCapture(t, ownedTree(t, usersBefore, usersBefore+1000), snap, "")
	want := describe(t, ownedTree(t, usersAfter, usersAfter), false)
	for name, dir := range map[string]string{"empty": t.TempDir(), "the same files": ownedTree(t, usersBefore, usersBefore+1000)} {
		for range 2 {
			_, err := RollbackAs(t.Context(), snap, dir, laterOwners)
			require.NoError(t, err, name)
			requireSame(t, want, describe(t, dir, false), name)
		}
	}
}

// TestRootOfNobody: the root of a tree may belong to who has mounted it.
func TestRootOfNobody(t *testing.T) {
	needRoot(t)
	root := ownedTree(t, usersBefore, usersBefore+1000)
	require.NoError(t, os.Chown(root, 0, 0))
	snap := filepath.Join(t.TempDir(), "snap")
	mustCapture(t, root, snap, "")
	dir := t.TempDir()
	require.NoError(t, os.Chown(dir, 5, 6))
	_, err := RollbackAs(t.Context(), snap, dir, laterOwners)
	require.NoError(t, err)
	for name, want := range map[string][2]uint32{".": {5, 6}, "dir/b": {usersAfter + 33, usersAfter + 33}} {
		st, err := os.Lstat(filepath.Join(dir, name))
		require.NoError(t, err)
		sys := st.Sys().(*syscall.Stat_t)
		require.Equal(t, want, [2]uint32{sys.Uid, sys.Gid}, name)
	}
}

// TestOwnerOfNobody: what belongs to none of the users is not put back.
func TestOwnerOfNobody(t *testing.T) {
	needRoot(t)
	for what, change := range map[string]func(root string) error{
		"user 299999": func(root string) error { return os.Chown(filepath.Join(root, "a"), usersBefore-1, usersBefore+1000) },
		"user 365536": func(root string) error {
			return os.Chown(filepath.Join(root, "a"), usersBefore+1<<16, usersBefore+1000)
		},
		"group 301100":       func(root string) error { return os.Chown(filepath.Join(root, "dir"), usersBefore, usersBefore+1100) },
		"for group 300006":   func(root string) error { return os.RemoveAll(filepath.Join(root, "a")) },
		"of user 4294967294": nil,
	} {
		gid := usersBefore + 1000
		if strings.HasPrefix(what, "for group") {
			gid = usersBefore // of the list; the owners are put right below
		}
		root := ownedTree(t, usersBefore, gid)
		if change == nil {
			o := *laterOwners
			_, err := o.moveCapability([]byte("\x01\x00\x00\x03................\xfe\xff\xff\xff"))
			require.ErrorIs(t, err, ErrOwner)
			require.ErrorContains(t, err, what)
			continue
		}
		require.NoError(t, change(root))
		if gid == usersBefore {
			for _, name := range []string{".", "dir", "dir/b", "dir/link"} {
				require.NoError(t, os.Lchown(filepath.Join(root, name), usersBefore, usersBefore+1000))
			}
		}
		snap := filepath.Join(t.TempDir(), "snap")
		mustCapture(t, root, snap, "")
		_, err := RollbackAs(t.Context(), snap, t.TempDir(), laterOwners)
		require.ErrorIs(t, err, ErrOwner, what)
		require.ErrorContains(t, err, what)
	}
}

// FuzzOwners: whatever attributes a snapshot holds, files become those of the tree's
// users, and of nobody else.
func FuzzOwners(f *testing.F) {
	f.Add(uint32(1000), []byte("\x02\x00\x00\x00\x02\x00\x07\x00\xe8\x03\x00\x00"))
	f.Add(uint32(1065535), []byte("\x00\x00\x00\x03aaaabbbbccccdddd\xe8\x03\x00\x00"))
	o := &Owners{UIDs: []OwnerRange{{From: 1000, To: 500_000, Count: 65536}}, GIDs: []OwnerRange{{From: 1000, To: 500_000, Count: 65536}}}
	f.Fuzz(func(t *testing.T, id uint32, value []byte) {
		e := entry{uid: id, gid: id, xattrs: []xattr{
			{name: []byte("security.capability"), value: value}, {name: []byte("system.posix_acl_access"), value: value},
		}}
		before := bytes.Clone(value)
		if err := o.move(&e); err != nil {
			require.ErrorIs(t, err, ErrOwner)
			return
		}
		require.True(t, e.uid >= 500_000 && e.uid < 565_536 && e.gid == e.uid, e.uid)
		require.Equal(t, before, value, "it is the snapshot's")
		for _, x := range e.xattrs {
			require.Len(t, x.value, len(value))
		}
	})
}
