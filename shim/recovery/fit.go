package recovery

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/pkg/cap"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/oci"
)

// sameMounts compares the mounts of the spec in an image with those of the live
// one. Where they come from on the host does not count.
//
// Errors: oci.ErrIncompatible, oci.ErrCorrupt.
func sameMounts(image []byte, live *specs.Spec) error {
	var was specs.Spec
	if err := json.Unmarshal(image, &was); err != nil {
		return fmt.Errorf("%w: spec.dump: %w", oci.ErrCorrupt, err)
	}
	describe := func(s *specs.Spec) (out []string) {
		for _, m := range s.Mounts {
			what := m.Type
			if isBind(m) {
				what = "bind"
			}
			if slices.Contains(m.Options, "ro") {
				what += ", read-only"
			}
			out = append(out, fmt.Sprintf("%s (%s)", filepath.Clean("/"+m.Destination), what))
		}
		if s.Root != nil && s.Root.Readonly {
			out = append(out, "/ (read-only)")
		}
		return out
	}
	a, b := describe(&was), describe(live)
	if onlyA, onlyB := difference(a, b); len(onlyA)+len(onlyB) > 0 {
		return fmt.Errorf("%w: mounts: only in the image %q, only here %q", oci.ErrIncompatible, onlyA, onlyB)
	}
	if !slices.Equal(a, b) {
		return fmt.Errorf("%w: the mounts come in another order: in the image %q, here %q", oci.ErrIncompatible, a, b)
	}
	return nil
}

// difference returns what only one of two lists has.
func difference(a, b []string) (onlyA, onlyB []string) {
	lacks := func(list []string) func(string) bool {
		return func(s string) bool { return slices.Contains(list, s) }
	}
	return slices.DeleteFunc(slices.Clone(a), lacks(b)), slices.DeleteFunc(slices.Clone(b), lacks(a))
}

// confined makes sure that an image gives no process more than the spec would:
// CRIU restores capabilities, users and filters as they are in the image.
//
// Errors: oci.ErrIncompatible.
func confined(c *criu.Contents, spec *specs.Spec) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", oci.ErrIncompatible, fmt.Sprintf(format, args...))
	}
	p := spec.Process
	if p == nil || spec.Linux == nil {
		return refuse("the container's spec has no process")
	}
	if p.Capabilities != nil { // else runc leaves them all
		allowed := slices.Concat(p.Capabilities.Bounding, p.Capabilities.Permitted, p.Capabilities.Inheritable)
		known, unknown := cap.FromBitmap(c.Capabilities)
		if more, _ := difference(known, allowed); len(more) > 0 || len(unknown) > 0 {
			return refuse("its processes have the capabilities %q %v, which this container's have not", more, unknown)
		}
	}
	switch {
	case c.Root && p.User.UID != 0:
		return refuse("its processes run as root, and this container's as user %d", p.User.UID)
	case p.NoNewPrivileges && !c.NoNewPrivs:
		return refuse("its processes may gain privileges, and this container's may not")
	case spec.Linux.Seccomp != nil && !c.Seccomp:
		return refuse("its processes have no seccomp filter, and this container's have one")
	}
	for _, want := range []string{p.ApparmorProfile, p.SelinuxLabel} {
		if want != "" && slices.ContainsFunc(c.Profiles, func(have string) bool { return have != want }) {
			return refuse("its processes run under the security profile %q, and this container's under %q", c.Profiles, want)
		}
	}
	return nil
}
