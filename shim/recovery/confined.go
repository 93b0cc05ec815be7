package recovery

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/pkg/cap"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/oci"
)

// confined makes sure that an image gives no process more than the spec would:
// CRIU restores users, groups, capabilities and open files as they are in the
// image. Whether a program of the container could have got them by executing
// some set-user-ID file is not asked: the file may be the image's as well.
//
// Errors: oci.ErrIncompatible.
func confined(c *criu.Contents, spec *specs.Spec) error {
	if spec.Process == nil || spec.Linux == nil {
		return misfit("the container's spec has no process")
	}
	limits := limitsOf(spec.Process)
	for _, r := range c.Rights {
		if err := limits.check(&r); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Needs)) {
		if !limits.may(name) {
			return misfit("its processes have %s, for which this container lacks %s", c.Needs[name], name)
		}
	}
	for _, mark := range c.Marks {
		// Sockets have ours from the proxy.
		if mark != redirect.MarkSteer && !limits.unlimited && !slices.Contains(limits.reach, "CAP_NET_ADMIN") {
			return misfit("its processes have a socket with the mark %#x, for which this container lacks CAP_NET_ADMIN", mark)
		}
	}
	return nil
}

func misfit(format string, args ...any) error {
	return fmt.Errorf("%w: %s", oci.ErrIncompatible, fmt.Sprintf(format, args...))
}

// limits are what the processes of a container can come to have.
type limits struct {
	process   *specs.Process
	unlimited bool // the spec says nothing of capabilities: runc leaves them all
	bounding  []string
	reach     []string // in the other sets, ever
	begin     []string // the program begins with
	groups    []uint32
}

func limitsOf(p *specs.Process) *limits {
	l := &limits{process: p, unlimited: p.Capabilities == nil, groups: append([]uint32{p.User.GID}, p.User.AdditionalGids...)}
	if l.unlimited {
		return l
	}
	c := p.Capabilities
	l.bounding, l.reach, l.begin = c.Bounding, slices.Concat(c.Permitted, c.Ambient), c.Ambient
	if p.User.UID == 0 {
		l.begin = l.reach
	}
	if !p.NoNewPrivileges { // files may have capabilities, and root has all of the bounding set
		l.reach = slices.Concat(c.Bounding, c.Permitted, c.Inheritable)
	}
	if p.User.UID == 0 && !p.NoNewPrivileges {
		l.begin = l.reach
	}
	return l
}

// mayChange says that the program can become somebody else on its own.
func (l *limits) mayChange(capability string) bool {
	return l.unlimited && l.process.User.UID == 0 || slices.Contains(l.begin, capability)
}

func (l *limits) check(r *criu.Rights) error {
	if err := l.checkCapabilities(r); err != nil {
		return err
	}
	user := l.process.User
	for _, uid := range r.UIDs {
		if uid != user.UID && !l.mayChange("CAP_SETUID") {
			return misfit("its processes run as user %d, and this container's as user %d", uid, user.UID)
		}
	}
	for _, gid := range slices.Concat(r.GIDs[:], r.Groups) {
		if !slices.Contains(l.groups, gid) && !l.mayChange("CAP_SETGID") {
			return misfit("its processes are in the group %d, and this container's in the groups %d", gid, l.groups)
		}
	}
	if r.SecureBits != 0 && !l.mayChange("CAP_SETPCAP") {
		return misfit("its processes have the secure bits %#x, and this container's can set none", r.SecureBits)
	}
	if l.process.NoNewPrivileges && !r.NoNewPrivs {
		return misfit("its processes may gain privileges, and this container's may not")
	}
	for _, want := range []string{l.process.ApparmorProfile, l.process.SelinuxLabel} {
		if want != "" && r.Profile != want {
			return misfit("its processes run under the security profile %q, and this container's under %q", r.Profile, want)
		}
	}
	return nil
}

func (l *limits) checkCapabilities(r *criu.Rights) error {
	if l.unlimited {
		return nil
	}
	inheritable := slices.Concat(l.process.Capabilities.Inheritable, l.reach)
	for _, set := range []struct {
		name    string
		have    uint64
		allowed []string
	}{
		{"bounding", r.Bounding, l.bounding},
		{"inheritable", r.Inheritable, inheritable},
		{"permitted", r.Permitted, l.reach},
		{"effective", r.Effective, l.reach},
		{"ambient", r.Ambient, l.reach},
	} {
		known, unknown := cap.FromBitmap(set.have)
		more := slices.DeleteFunc(known, func(s string) bool { return slices.Contains(set.allowed, s) })
		for _, bit := range unknown {
			more = append(more, strconv.Itoa(bit)) // of a newer kernel
		}
		if len(more) > 0 {
			return misfit("its processes have the %s capabilities %q, which this container's have not", set.name, more)
		}
	}
	return nil
}

// ceiling is what the processes may have at most: as much as the one that runc has
// made, unless they may raise it themselves.
func ceiling(pid int, p *specs.Process) (*criu.Ceiling, error) {
	c, err := criu.CeilingOf(pid)
	if err != nil {
		return nil, err
	}
	l := limitsOf(p)
	c.Limits = !l.may("CAP_SYS_RESOURCE")
	c.Priority = !l.may("CAP_SYS_NICE")
	return c, nil
}

// may says that some program of the container can have a capability.
func (l *limits) may(capability string) bool {
	return l.unlimited || slices.Contains(l.reach, capability)
}

// user is whom the container's programs open files as.
func (l *limits) user() criu.User {
	u := criu.User{UID: l.process.User.UID, GID: l.process.User.GID, Groups: l.groups}
	for i, name := range cap.Known() {
		if l.may(name) {
			u.Capabilities |= 1 << i
		}
	}
	return u
}
