package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v3 "github.com/containerd/cgroups/v3"
)

// Root is where the hierarchies are mounted: version 2 itself, or a directory
// with one mount for each hierarchy.
const Root = "/sys/fs/cgroup"

// Unified reports whether the host has version 2 only. Otherwise the
// controllers are those of version 1.
func Unified() bool { return v3.Mode() == v3.Unified }

// Paths tell the cgroups of one process. The zero value has none.
type Paths struct {
	root string
	v1   map[string]string // path by controller
	v2   string            // path; empty: none
}

// Of reads the cgroups of a process, as they are seen from this process's
// cgroup namespace. The error is that of reading /proc.
func Of(pid int) (Paths, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return Paths{}, err
	}
	return Parse(Root, string(b)), nil
}

// Parse reads the text of /proc/PID/cgroup, cgroups(7), for hierarchies that are
// mounted at or below root. Lines of another form are passed over.
func Parse(root, text string) Paths {
	g := Paths{root: root, v1: map[string]string{}}
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) != 3:
		case f[0] == "0":
			g.v2 = f[2]
		default:
			for controller := range strings.SplitSeq(f[1], ",") {
				g.v1[controller] = f[2]
			}
		}
	}
	return g
}

// V1 returns the directory of the process's cgroup in the hierarchy of version
// 1 that has the controller; empty if none has.
func (g Paths) V1(controller string) string {
	path, ok := g.v1[controller]
	if !ok {
		return ""
	}
	// Hierarchies with several controllers are linked by the name of each.
	return filepath.Join(g.root, controller, path)
}

// V2 returns the directory of the process's cgroup of version 2. It is empty if
// there is none but the root, or it is not to be found.
func (g Paths) V2() string {
	if g.v2 == "" || g.v2 == "/" {
		return ""
	}
	for _, mount := range []string{g.root, filepath.Join(g.root, "unified")} {
		dir := filepath.Join(mount, g.v2)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return dir
		}
	}
	return ""
}
