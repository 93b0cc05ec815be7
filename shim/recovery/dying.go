package recovery

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/crsc-io/crsc/netproxy"
)

// pfExiting is PF_EXITING of include/linux/sched.h. do_exit sets it before it
// closes the descriptors, so it is visible when the peer of a socket sees the
// FIN.
const pfExiting = 0x4

// processes watches the container's processes for signs of a crash. All but
// follow is used by the proxy's loop only.
type processes struct {
	procs string // the cgroup's cgroup.procs
	init  atomic.Int64
	last  int64        // init at the last look
	known map[int]bool // seen alive at the last look
	buf   []byte
}

// watchProcesses follows the cgroup of pid, the container's init.
func watchProcesses(pid int) (*processes, error) {
	dir, err := cgroupDir(pid)
	if err != nil {
		return nil, err
	}
	p := &processes{procs: filepath.Join(dir, "cgroup.procs"), known: map[int]bool{}, buf: make([]byte, 4096)}
	p.follow(pid)
	p.look()
	return p, nil
}

// follow makes pid the init, after a restore.
func (p *processes) follow(pid int) { p.init.Store(int64(pid)) }

// dying reports whether the init is exiting, or another process of the
// container is or has gone since the last look: the child of a wrapper (a
// shell, tini) dies first, and the init follows.
func (p *processes) dying() netproxy.Dying {
	switch {
	case exiting(int(p.init.Load()), p.buf):
		return netproxy.InitDying
	case p.look():
		return netproxy.ChildDying
	}
	return netproxy.Alive
}

// look reads the list of processes again; true if one that was there is gone or
// exiting.
func (p *processes) look() bool {
	b, err := os.ReadFile(p.procs)
	if err != nil {
		return true // the cgroup itself has gone
	}
	if now := p.init.Load(); now != p.last {
		p.last = now
		clear(p.known) // those of the dead container
	}
	now, dying := make(map[int]bool, len(p.known)), false
	for _, f := range bytes.Fields(b) {
		pid, err := strconv.Atoi(string(f))
		if err != nil {
			continue
		}
		if exiting(pid, p.buf) {
			dying = true
			continue
		}
		now[pid] = true
	}
	for pid := range p.known {
		dying = dying || !now[pid]
	}
	p.known = now
	return dying
}

// exiting reads the flags of /proc/PID/stat. A process that is not there has
// exited.
func exiting(pid int, buf []byte) bool {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	defer f.Close()
	n, err := f.Read(buf)
	if err != nil {
		return true
	}
	// The command name is in parentheses and may contain anything.
	rest := bytes.Fields(buf[bytes.LastIndexByte(buf[:n], ')')+1 : n])
	if len(rest) < 7 {
		return true
	}
	// Fields 3 (state) and 9 (flags) of proc_pid_stat(5).
	if s := rest[0][0]; s == 'Z' || s == 'X' {
		return true
	}
	flags, err := strconv.ParseUint(string(rest[6]), 10, 64)
	return err == nil && flags&pfExiting != 0
}

// cgroupDir finds a cgroup of pid that lists its processes: the pids hierarchy
// of version 1, else version 2.
func cgroupDir(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	unified := ""
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[1] == "pids" || f[1] == "freezer" {
			if dir := filepath.Join("/sys/fs/cgroup", f[1], f[2]); isDir(dir) {
				return dir, nil
			}
		}
		if f[0] == "0" {
			unified = f[2]
		}
	}
	if dir := filepath.Join("/sys/fs/cgroup", unified); unified != "" && unified != "/" && isDir(dir) {
		return dir, nil
	}
	return "", errors.New("no cgroup of the container's own was found under /sys/fs/cgroup")
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}
