package criu

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// IDMaps say which users and groups of the host those of a user namespace are.
// They are read from a living process, never from images.
type IDMaps struct {
	UIDs []specs.LinuxIDMapping `json:"uids"`
	GIDs []specs.LinuxIDMapping `json:"gids"`
}

// maxIDMappings bounds what is read; the kernel takes 340 (UID_GID_MAP_MAX_EXTENTS).
const maxIDMappings = 340

// idMapsOf reads the maps of the user namespace that a process is in.
func idMapsOf(pid int) (*IDMaps, error) {
	uids, err := readIDMap(fmt.Sprintf("/proc/%d/uid_map", pid))
	if err != nil {
		return nil, err
	}
	gids, err := readIDMap(fmt.Sprintf("/proc/%d/gid_map", pid))
	return &IDMaps{UIDs: uids, GIDs: gids}, err
}

func readIDMap(path string) (out []specs.LinuxIDMapping, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		if out = append(out, m); len(out) > maxIDMappings {
			return nil, fmt.Errorf("%s: more than %d lines", path, maxIDMappings)
		}
	}
	return out, nil
}

// root returns which user and group of the host the namespace's root is.
func (m *IDMaps) root() (owner, error) {
	uid, ok := hostID(m.UIDs, 0)
	gid, ok2 := hostID(m.GIDs, 0)
	if !ok || !ok2 {
		return owner{}, fmt.Errorf("%w: the user namespace has no root (uids %v, gids %v), as whom CRIU would have to run", ErrUnsupported, m.UIDs, m.GIDs)
	}
	return owner{uid: uid, gid: gid}, nil
}

func hostID(maps []specs.LinuxIDMapping, id uint32) (int, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + id - m.ContainerID), true
		}
	}
	return 0, false
}

// Alike reports whether two containers have the same users, whoever those are on
// the host. nil are the maps of a container without a user namespace.
func (m *IDMaps) Alike(o *IDMaps) bool {
	if m == nil || o == nil {
		return m == o
	}
	alike := func(a, b specs.LinuxIDMapping) bool { return a.ContainerID == b.ContainerID && a.Size == b.Size }
	return slices.EqualFunc(m.UIDs, o.UIDs, alike) && slices.EqualFunc(m.GIDs, o.GIDs, alike)
}

// Same reports whether two containers see the files of the host with the same
// owners.
func (m *IDMaps) Same(o *IDMaps) bool {
	if m == nil || o == nil {
		return m == o
	}
	return slices.Equal(m.UIDs, o.UIDs) && slices.Equal(m.GIDs, o.GIDs)
}
