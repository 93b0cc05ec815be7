package recovery

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/redirect"
)

// inodeOf is the inode of a listener of this process.
func inodeOf(t *testing.T, l net.Listener) uint32 {
	t.Helper()
	f, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	defer f.Close()
	var st syscall.Stat_t
	require.NoError(t, syscall.Fstat(int(f.Fd()), &st))
	return uint32(st.Ino)
}

// TestOwns: the process that has a listener open is found in the container's
// cgroup and in those below it, and nowhere else.
func TestOwns(t *testing.T) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	mine, self := inodeOf(t, l), []byte(strconv.Itoa(os.Getpid())+"\n")
	for name, group := range map[string]struct {
		list   map[string][]byte
		inodes []uint32
		want   redirect.Ownership
	}{
		"its own":       {map[string][]byte{"cgroup.procs": self}, []uint32{mine}, redirect.Ours},
		"below":         {map[string][]byte{"cgroup.procs": nil, "a/b/cgroup.procs": self}, []uint32{mine}, redirect.Ours},
		"another's":     {map[string][]byte{"cgroup.procs": []byte("1\n")}, []uint32{mine}, redirect.Theirs},
		"partly theirs": {map[string][]byte{"cgroup.procs": self}, []uint32{mine, 1}, redirect.Theirs},
		"no process":    {map[string][]byte{"cgroup.procs": nil}, []uint32{mine}, redirect.Theirs},
		"no cgroup":     {nil, []uint32{mine}, redirect.Theirs},
	} {
		dir := filepath.Join(t.TempDir(), "group")
		for file, content := range group.list {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), content, 0o600))
		}
		p := &processes{procs: filepath.Join(dir, "cgroup.procs")}
		require.Equal(t, group.want, p.owns(group.inodes), name)
	}
}

// TestEnds: a thread is about to end between the flag and its last state. What it
// calls itself does not matter.
func TestEnds(t *testing.T) {
	for stat, want := range map[string]bool{
		"7 (app) S 1 7 7 0 -1 4194304 0\n":           false,
		"7 (app) R 1 7 7 0 -1 4194308 0\n":           true,
		"7 (a) Z 1 7 7 0 -1 4 (b) S 1 7 7 0 -1 4 \n": true,
		"7 (a) R 1 7 7 0 -1 4) S 1 7 7 0 -1 0 0\n":   false,
		"7 (app) Z 1 7 7 0 -1 4194308 0\n":           false, // others live on without it
		"7 (app) R":                                  false,
		"":                                           false,
	} {
		task := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(task, "stat"), []byte(stat), 0o600))
		require.Equal(t, want, ends(task), stat)
	}
	require.False(t, ends(t.TempDir()), "it has gone")
}

// FuzzEnds: the name in the line is the container's choice.
func FuzzEnds(f *testing.F) {
	f.Add("app")
	f.Add("a) Z 1 7 7 0 -1 0 ")
	f.Fuzz(func(t *testing.T, name string) {
		task := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(task, "stat"), []byte("7 ("+name+") R 1 7 7 0 -1 4194308 0\n"), 0o600))
		require.True(t, ends(task))
	})
}
