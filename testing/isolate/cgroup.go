package isolate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup hierarchy.
type hierarchy struct {
	dir     string
	kind    string // cgroup or cgroup2
	options string // of the mount: the controllers, or a name
}

func hierarchies() ([]hierarchy, error) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var out []hierarchy
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[2] != "cgroup" && f[2] != "cgroup2" {
			continue
		}
		h := hierarchy{dir: f[1], kind: f[2]}
		if h.kind == "cgroup" {
			h.options = controllers(f[3])
		}
		out = append(out, h)
	}
	if len(out) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted")
	}
	return out, nil
}

// controllers leaves the general mount options out.
func controllers(options string) string {
	var out []string
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "clone_children", "xattr":
		default:
			if !strings.HasPrefix(o, "release_agent=") {
				out = append(out, o)
			}
		}
	}
	return strings.Join(out, ",")
}

// group is a cgroup of the same name in every hierarchy.
type group struct {
	name string
	// home is where this process was before, by hierarchy.
	home map[hierarchy]string
}

const groupPrefix = "crsc-isolate-"

// newGroup makes the group, and removes those of runs that were killed.
func newGroup(name string) (*group, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	g := &group{name: fmt.Sprintf("%s%s-%d", groupPrefix, name, os.Getpid()), home: map[hierarchy]string{}}
	for _, h := range all {
		removeStale(h)
		if g.home[h], err = h.current(); err != nil {
			return nil, errors.Join(err, g.remove())
		}
		if err := os.Mkdir(filepath.Join(h.dir, g.name), 0o755); err != nil {
			return nil, errors.Join(err, g.remove())
		}
		if err := h.initCpuset(g.name); err != nil {
			return nil, errors.Join(err, g.remove())
		}
	}
	return g, nil
}

// current is the group of this process, below the hierarchy's mount point.
func (h hierarchy) current() (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && f[1] == h.options {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("this process is in no cgroup of %s", h.dir)
}

// initCpuset: a new cpuset of version 1 takes no process before it has values.
func (h hierarchy) initCpuset(group string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(h.dir, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(h.dir, group, file), bytes.TrimSpace(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) join() error { return g.move(func(hierarchy) string { return g.name }) }
func (g *group) leave() error {
	return g.move(func(h hierarchy) string { return g.home[h] })
}

// move moves this process with all threads.
func (g *group) move(to func(hierarchy) string) error {
	var err error
	for h := range g.home {
		procs := filepath.Join(h.dir, to(h), "cgroup.procs")
		err = errors.Join(err, os.WriteFile(procs, []byte("0"), 0o644))
	}
	return err
}

func (g *group) remove() error {
	var err error
	for h := range g.home {
		err = errors.Join(err, removeTree(filepath.Join(h.dir, g.name)))
	}
	return err
}

// removeTree removes a group and those below. The kernel needs a moment for
// processes that have just died.
func removeTree(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() || path == dir {
				return ignoreAbsent(err)
			}
			if err := removeTree(path); err != nil {
				return err
			}
			return fs.SkipDir
		})
		if err == nil {
			err = ignoreAbsent(unix.Rmdir(dir))
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeStale removes the groups of runs whose process is gone. What cannot be
// removed is in use, and left alone.
func removeStale(h hierarchy) {
	old, _ := filepath.Glob(filepath.Join(h.dir, groupPrefix+"*"))
	for _, dir := range old {
		_, pid, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), groupPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(unix.Kill(n, 0), unix.ESRCH) {
			_ = removeTree(dir)
		}
	}
}
