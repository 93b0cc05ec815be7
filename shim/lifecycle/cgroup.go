package lifecycle

import (
	"context"
	"fmt"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/log"
	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/internal/cgroups"
)

// cgroup is the cgroup of a container, of either version.
type cgroup struct {
	v1 cgroup1.Cgroup
	v2 *cgroup2.Manager
	// path of the v2 cgroup below its mount point.
	path string
	// memory is the directory of v1 that OOMs are watched in, and inode its number.
	memory string
	inode  uint64
}

// loadCgroup finds the cgroup of a process.
func loadCgroup(pid int) (*cgroup, error) {
	if !cgroups.Unified() {
		cg, err := cgroup1.Load(cgroup1.PidPath(pid))
		if err != nil {
			return nil, fmt.Errorf("load cgroup of %d: %w", pid, err)
		}
		g := &cgroup{v1: cg}
		if paths, err := cgroups.Of(pid); err == nil {
			g.memory = paths.V1("memory")
			g.inode = inode(g.memory)
		}
		return g, nil
	}
	path, err := cgroup2.PidGroupPath(pid)
	if err != nil {
		return nil, fmt.Errorf("load cgroup of %d: %w", pid, err)
	}
	cg, err := cgroup2.Load(path)
	if err != nil {
		return nil, fmt.Errorf("load cgroup of %d: %w", pid, err)
	}
	return &cgroup{v2: cg, path: path}, nil
}

// enableControllers makes a v2 cgroup count everything for its children. What
// is not allowed in a user namespace is not worth a warning.
func (g *cgroup) enableControllers(ctx context.Context) {
	if g.v2 == nil {
		return
	}
	all, err := g.v2.RootControllers()
	if err == nil {
		err = g.v2.ToggleControllers(all, cgroup2.Enable)
	}
	if err != nil && !userns.RunningInUserNS() {
		log.G(ctx).WithError(err).Errorf("failed to enable controllers (%v)", all)
	}
}

// stats returns the metrics message of the cgroup's version.
func (g *cgroup) stats() (any, error) {
	if g.v1 != nil {
		return g.v1.Stat(cgroup1.IgnoreNotExist)
	}
	return g.v2.Stat()
}

// inode is the number of a file, 0 if there is none.
func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// gone says that the cgroup was removed. There may be another under its name:
// systemd removes that of a dead container at once.
func (g *cgroup) gone() bool {
	if g.v1 != nil {
		return g.v1.State() == cgroup1.Deleted || inode(g.memory) != g.inode
	}
	_, err := g.v2.Controllers()
	return err != nil
}

// pids lists the processes in the cgroup, none if it was removed.
func (g *cgroup) pids() []int {
	var pids []int
	if g.v2 != nil {
		procs, _ := g.v2.Procs(true)
		for _, p := range procs {
			pids = append(pids, int(p))
		}
		return pids
	}
	for _, s := range g.v1.Subsystems() {
		procs, err := g.v1.Processes(s.Name(), true)
		if err != nil {
			continue
		}
		for _, p := range procs {
			pids = append(pids, p.Pid)
		}
		break
	}
	return pids
}
