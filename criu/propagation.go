package criu

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/mnt"
	"google.golang.org/protobuf/proto"
)

// A volume may be a slave: what is mounted below it on the host shows up in the
// container (mountPropagation HostToContainer, and whatever `ctr run --mount` binds
// without a word on it). CRIU puts mounts with one master into one group and
// gives the whole group the sharing of the first one's pin, which the kernel
// allows only for what is below that pin's root (do_set_group of its
// fs/namespace.c): two volumes of one file system were not restored. So each mount
// from outside is made a group of its own, which has its own pin for a source.

// firstMaster begins the numbers of those groups. The kernel gives out small ones.
const firstMaster = 1 << 30

// regroup is a change of the table of mounts.
type regroup struct {
	slaves map[string]bool // the pinned mounts that are, by their place in the container
	moved  bool
	groups uint32
}

func newRegroup(p *Pins, moved bool) (*regroup, error) {
	list, err := readMounts(os.Getpid())
	if err != nil {
		return nil, err
	}
	is := map[string]bool{}
	for _, m := range list {
		is[m.target] = m.slave
	}
	dir, err := filepath.EvalSymlinks(p.Dir) // the kernel names no links
	if err != nil {
		return nil, err
	}
	g := &regroup{slaves: map[string]bool{}, moved: moved}
	for _, m := range p.Mounts {
		slave, ok := is[filepath.Join(dir, filepath.Base(m.Host))]
		if !ok {
			return nil, fmt.Errorf("the pin of %s, %s, is not mounted any more", m.Container, m.Host)
		}
		g.slaves[cleanTarget(m.Container)] = slave
	}
	return g, nil
}

// change gives a mount the propagation that it had, or, when the images were
// moved, that its counterpart here has. The root's master is known here only if
// they were not.
func (g *regroup) change(m *mnt.MntEntry) {
	slave := m.GetMasterId() != 0
	switch target := cleanTarget(m.GetMountpoint()); {
	case target == "/":
		slave = slave && !g.moved
		if slave {
			return
		}
	case m.ExtKey == nil:
		return
	case g.moved:
		slave = g.slaves[target]
	default:
		slave = slave && g.slaves[target]
	}
	m.MasterId = proto.Uint32(0)
	if slave {
		m.MasterId = proto.Uint32(firstMaster + g.groups)
		g.groups++
	}
}

// blame adds to the error of a failed dump what the host has mounted below slaves
// since they were pinned: CRIU can't dump that.
func (p *Pins) blame(pid int, err error) error {
	list, readErr := readMounts(pid)
	if readErr != nil {
		return err // the processes are gone
	}
	var since []string
	for _, m := range list {
		pinned := slices.ContainsFunc(p.Mounts, func(pin PinnedMount) bool { return cleanTarget(pin.Container) == cleanTarget(m.target) })
		if m.slave && !pinned && m.target != "/" {
			since = append(since, m.target)
		}
	}
	if len(since) == 0 {
		return err
	}
	return fmt.Errorf("%w: the host has mounted something at %s since the container was created: %w", ErrUnsupported, strings.Join(since, ", "), err)
}
