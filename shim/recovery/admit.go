package recovery

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/oci"
)

// Whatever was made of another container is held to the live one in the same
// way, whether it is an image, or what the pod or the container before has left:
// confined and sameMounts compare it with the spec, and admit with the container
// that runc has created. A container's own checkpoints need none of it: all that
// is in them was once allowed under the same spec, and nobody else can write them.

// admit compares a checkpoint of another container with the one that has been
// created, but for the addresses of its sockets, and takes from it what the
// container may not have and can be taken. profiled: its first seccomp filter is
// said to be runc's.
//
// Errors: oci.ErrIncompatible.
func (g *guard) admit(cp *checkpoint, contents *criu.Contents, profiled bool) error {
	spec, err := g.c.Spec()
	if err != nil {
		return err
	}
	if err := errors.Join(g.suits(cp, contents, spec), g.mayOpen(contents, spec), g.mayBind(contents, spec)); err != nil {
		return err
	}
	if cp.ceiling, err = ceiling(g.c.Pid(), spec.Process); err != nil {
		return err
	}
	if spec.Linux.Seccomp == nil {
		return nil
	}
	return g.filter(cp, profiled)
}

// suits compares a checkpoint of another container with the one that has been
// created.
func (g *guard) suits(cp *checkpoint, contents *criu.Contents, spec *specs.Spec) error {
	var pinned []specs.LinuxNamespaceType
	for _, ns := range g.pins.Namespaces {
		pinned = append(pinned, ns.Type)
	}
	slices.Sort(pinned)
	if !slices.Equal(pinned, contents.Namespaces) {
		return misfit("its processes want the namespaces %q from outside, and this container has %q", contents.Namespaces, pinned)
	}
	if !contents.IDMaps.Alike(g.pins.IDMaps) {
		return misfit("it has other users than this container in its user namespace: %v, and %v here", contents.IDMaps, g.pins.IDMaps)
	}
	here, err := g.pins.MountTable(g.c.Pid(), maskedPaths(spec))
	if err != nil {
		return err
	}
	if a, b := difference(contents.Mounts, here); len(a)+len(b) > 0 {
		return fmt.Errorf("%w: mounts: only in the image %q, only here %q", oci.ErrIncompatible, a, b)
	}
	for _, t := range g.files.trees {
		if _, err := os.Lstat(filepath.Join(cp.dir, t.name)); err != nil {
			return fmt.Errorf("%w: it has no copy of %s", oci.ErrIncompatible, t.dir)
		}
	}
	return nil
}

// mayOpen refuses open files that the container's programs could not have opened:
// CRIU opens them as the host's root.
func (g *guard) mayOpen(contents *criu.Contents, spec *specs.Spec) error {
	not, err := g.pins.MayOpen(g.c.Pid(), limitsOf(spec.Process).user(), contents.Opened)
	if err != nil {
		return err
	}
	if not != (criu.Opened{}) {
		how := "reading"
		if not.Write {
			how = "writing"
		}
		return misfit("it has %s open for %s, which the user %d of this container may not", not.Path, how, spec.Process.User.UID)
	}
	return nil
}

// mayBind refuses sockets at ports that the container's programs could not have
// bound them to.
func (g *guard) mayBind(contents *criu.Contents, spec *specs.Spec) error {
	if limitsOf(spec.Process).may("CAP_NET_BIND_SERVICE") {
		return nil
	}
	first, err := g.pins.FirstPort()
	if err != nil {
		return err
	}
	for _, b := range contents.Bound {
		if b.Port() < first {
			return misfit("a socket is bound to %s, and this container, which lacks CAP_NET_BIND_SERVICE, may use ports from %d", b, first)
		}
	}
	return nil
}
