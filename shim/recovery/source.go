package recovery

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// emptyDir lives and dies with the pod (pkg/volume/emptydir of Kubernetes).
// What a subPath makes of it is below.
var emptyDir = regexp.MustCompile(`/pods/[^/]+/volumes/kubernetes\.io~empty-dir/[^/]+(/.*)?$`)

// location is where a path leads, whatever it is called: the kubelet binds the
// subPath of a volume to a path of its own.
type location struct {
	major, minor int    // of the file system
	path         string // in it
}

// holds reports whether other is the same place, or below it.
func (l location) holds(other location) bool {
	return l.major == other.major && l.minor == other.minor &&
		(l.path == other.path || strings.HasPrefix(other.path, strings.TrimSuffix(l.path, "/")+"/"))
}

// mountTable are the mounts of the host, in their order.
type mountTable []*mountinfo.Info

func readMountTable() (mountTable, error) {
	t, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("mounts of the host: %w", err)
	}
	return t, nil
}

// locate finds the mount that a path is on, and the path's place in it.
func (t mountTable) locate(path string) location {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	path = filepath.Clean(path)
	var on *mountinfo.Info
	for _, m := range t {
		// Of several at one place the last is on top.
		if within(path, m.Mountpoint) && (on == nil || len(m.Mountpoint) >= len(on.Mountpoint)) {
			on = m
		}
	}
	if on == nil {
		return location{path: path}
	}
	return location{on.Major, on.Minor, filepath.Join(on.Root, strings.TrimPrefix(path, on.Mountpoint))}
}

// within reports whether path is dir or below it. Both are clean.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// ofPod reports whether a path leads into an emptyDir: by its name, by what is
// bound there, or because a tmpfs that is an emptyDir is.
func (t mountTable) ofPod(path string) bool {
	at := t.locate(path)
	if emptyDir.MatchString(filepath.Clean(path)) || emptyDir.MatchString(at.path) {
		return true
	}
	for _, m := range t {
		if m.FSType == "tmpfs" && m.Major == at.major && m.Minor == at.minor && emptyDir.MatchString(m.Mountpoint) {
			return true
		}
	}
	return false
}
