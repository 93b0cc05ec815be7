package recovery

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// neighbours knows which other containers of the node could write to the
// volumes that are rolled back with this one.
type neighbours struct {
	bundle  string // of the container: <directory>/<namespace>/<id>
	volumes []volume
	checked map[string]time.Time // mtimes that the namespaces' directories had
}

// settled is the age from which on a directory of bundles is sure to get another
// mtime with the next change: file systems count it in ticks.
const settled = time.Second

// sharing looks for a container, in whatever namespace of containerd, that mounts
// one of the volumes writable. It costs one stat for each namespace as long as no
// container came or went. The pod's /dev/shm is passed over: all of the pod have
// it, and few use it.
//
// Errors: ErrUnprotected names volume and container.
func (n *neighbours) sharing() error {
	volumes := slices.DeleteFunc(slices.Clone(n.volumes), func(v volume) bool { return v.ofPod() || v.source == "" })
	if len(volumes) == 0 {
		return nil
	}
	all := filepath.Dir(filepath.Dir(n.bundle))
	list, err := os.ReadDir(all)
	if err != nil {
		return fmt.Errorf("containers of the node: %w", err)
	}
	host := sync.OnceValues(readMountTable)
	checked := map[string]time.Time{}
	for _, e := range list {
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(all, e.Name())
		at, err := n.sharingIn(dir, volumes, host)
		switch {
		case errors.Is(err, fs.ErrNotExist): // the namespace's last container has gone
		case err != nil:
			return err
		case !at.IsZero():
			checked[dir] = at
		}
	}
	n.checked = checked
	return nil
}

// sharingIn looks among the containers of one namespace. It returns the mtime
// for which this has been settled; zero if it has to be looked at again.
func (n *neighbours) sharingIn(dir string, volumes []volume, host func() (mountTable, error)) (at time.Time, err error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return at, fmt.Errorf("containers of the node: %w", err)
	}
	if before, ok := n.checked[dir]; ok && fi.ModTime().Equal(before) {
		return before, nil
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return at, fmt.Errorf("containers of the node: %w", err)
	}
	mounts, err := host()
	if err != nil {
		return at, err
	}
	complete := time.Since(fi.ModTime()) > settled
	for _, e := range list {
		bundle := filepath.Join(dir, e.Name())
		if bundle == n.bundle {
			continue
		}
		path, read := sharedPath(filepath.Join(bundle, "config.json"), volumes, mounts)
		complete = complete && read
		if path != "" {
			return at, unprotected("volume %s can't be rolled back, because container %s writes to it as well; name it in crsc.io/safe-volumes if it may be newer than memory", path, n.called(bundle))
		}
	}
	if complete {
		at = fi.ModTime()
	}
	return at, nil
}

// called is the ID of another container, with the namespace if that is another
// one.
func (n *neighbours) called(bundle string) string {
	if filepath.Dir(bundle) == filepath.Dir(n.bundle) {
		return filepath.Base(bundle)
	}
	return filepath.Base(bundle) + " of the namespace " + filepath.Base(filepath.Dir(bundle))
}

// sharedPath returns the volume that the container with this spec mounts too.
// One whose spec can't be read is being made, or has gone. It has to be looked
// at again: containerd writes the spec after it has made the directory.
func sharedPath(config string, volumes []volume, host mountTable) (path string, read bool) {
	b, err := os.ReadFile(config)
	var spec specs.Spec
	if err != nil || json.Unmarshal(b, &spec) != nil {
		return "", false
	}
	for _, other := range specVolumes(&spec) {
		at := host.locate(other.source)
		for _, v := range volumes {
			if at.holds(v.at) || v.at.holds(at) {
				return v.path, true
			}
		}
	}
	return "", true
}

// userOf finds a process that has a file open or mapped which lies on the file
// system that is mounted at dir. It is slow: it looks at all processes of the
// host.
func userOf(dir string) (pid int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if mapsFrom(pid, st.Dev) || opensOn(pid, st.Dev) {
			return pid, nil
		}
	}
	return 0, nil
}

// mapsFrom reports whether a process maps a file of the device. One that has
// ended does not.
func mapsFrom(pid int, dev uint64) bool {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false
	}
	defer f.Close()
	want := fmt.Sprintf("%02x:%02x", unix.Major(dev), unix.Minor(dev))
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// address perms offset device inode path
		if fields := strings.Fields(lines.Text()); len(fields) > 3 && fields[3] == want {
			return true
		}
	}
	return false
}

// opensOn is mapsFrom for open files.
func opensOn(pid int, dev uint64) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range list {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, e.Name()), &st) == nil && st.Dev == dev {
			return true
		}
	}
	return false
}
