package recovery

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/crsc-io/crsc/netproxy/redirect"
)

// owns tells whether listening sockets are the container's: whether processes
// of its cgroup, or of one below it, have them open. A listener that is shared
// with others can't be protected, and is theirs.
func (p *processes) owns(inodes []uint32) redirect.Ownership {
	missing := make(map[string]bool, len(inodes))
	for _, ino := range inodes {
		missing["socket:["+strconv.FormatUint(uint64(ino), 10)+"]"] = true
	}
	err := filepath.WalkDir(filepath.Dir(p.procs), func(path string, d fs.DirEntry, err error) error {
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
			removeOpen("/proc/"+pid, missing)
		}
		return nil
	})
	switch {
	case err != nil:
		return redirect.Unknown
	case len(missing) == 0:
		return redirect.Ours
	}
	return redirect.Theirs
}

// removeOpen removes from missing what the process has open.
func removeOpen(process string, missing map[string]bool) {
	dir := process + "/fd"
	files, err := os.ReadDir(dir)
	if err == nil && len(files) == 0 {
		// The first thread may have ended before the others, and its table with it.
		dir, files = lastTask(process)
	}
	for _, f := range files {
		if name, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil {
			delete(missing, name)
		}
	}
}

// lastTask lists the files of the process's youngest thread.
func lastTask(process string) (dir string, files []os.DirEntry) {
	tasks, err := os.ReadDir(process + "/task")
	if err != nil || len(tasks) == 0 {
		return "", nil // it has ended
	}
	dir = filepath.Join(process, "task", tasks[len(tasks)-1].Name(), "fd")
	files, _ = os.ReadDir(dir)
	return dir, files
}
