package recovery

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/crsc-io/crsc/netproxy/redirect"
)

// owns tells whether listening sockets are the container's: whether processes
// of its cgroup, or of one below it, have them open. A listener that is shared
// with others can't be protected, and is theirs.
func (p *processes) owns(inodes []uint32) redirect.Ownership {
	for range scans {
		missing, exiting, err := p.missing(inodes)
		switch {
		case err != nil || exiting && len(missing) > 0:
			return redirect.Unknown
		case len(missing) == 0:
			return redirect.Ours
		}
	}
	return redirect.Theirs
}

// scans is how often a socket is looked for that nobody seems to have: it may have
// been moved from one descriptor to another meanwhile.
const scans = 3

// missing returns the sockets that no process of the container has open, and
// whether one is about to end, whose sockets outlive its descriptors.
func (p *processes) missing(inodes []uint32) (missing map[string]bool, exiting bool, err error) {
	missing = make(map[string]bool, len(inodes))
	for _, ino := range inodes {
		missing["socket:["+strconv.FormatUint(uint64(ino), 10)+"]"] = true
	}
	err = filepath.WalkDir(filepath.Dir(p.procs), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.Name() != filepath.Base(p.procs):
			return nil // a cgroup may go at any time
		case len(missing) == 0:
			return fs.SkipAll
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for pid := range strings.FieldsSeq(string(b)) {
			ends := removeOpen("/proc/"+pid, missing)
			exiting = exiting || ends
		}
		return nil
	})
	return missing, exiting, err
}

// removeOpen removes from missing what the process has open. It reports whether the
// process ends and has no descriptors any more.
func removeOpen(process string, missing map[string]bool) (exiting bool) {
	dir := process + "/fd"
	files, err := os.ReadDir(dir)
	if err == nil && len(files) == 0 {
		tasks, err := os.ReadDir(process + "/task")
		if err != nil || len(tasks) == 0 {
			return false // it has ended
		}
		// The first thread may have ended before the others, and its table with it.
		dir = filepath.Join(process, "task", tasks[len(tasks)-1].Name(), "fd")
		if files, _ = os.ReadDir(dir); len(files) == 0 {
			return slices.ContainsFunc(tasks, func(t os.DirEntry) bool {
				return ends(filepath.Join(process, "task", t.Name()))
			})
		}
	}
	for _, f := range files {
		if name, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil {
			delete(missing, name)
		}
	}
	return false
}

// ends reports whether a thread is about to end. A zombie has ended, and what it had
// open is of other threads, which tell for themselves: it can stay for ever.
func ends(task string) bool {
	state, flags, err := threadState(task)
	return err == nil && state != 'Z' && flags&pfExiting != 0
}
