package recovery

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// unprotected is a reason that an operator reads in the status.
func unprotected(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnprotected, fmt.Sprintf(format, args...))
}

// checkSpec looks for what can be known before the container exists.
func (g *guard) checkSpec(spec *specs.Spec) error {
	if spec.Linux == nil {
		return unprotected("not a Linux container")
	}
	own := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range spec.Linux.Namespaces {
		own[ns.Type] = true
	}
	for _, need := range []struct {
		ns   specs.LinuxNamespaceType
		what string
	}{{specs.NetworkNamespace, "network"}, {specs.PIDNamespace, "PID"}, {specs.MountNamespace, "mount"}} {
		if !own[need.ns] {
			return unprotected("the container uses the host's %s namespace", need.what)
		}
	}
	host, err := readMountTable()
	if err != nil {
		return err
	}
	for _, v := range specVolumes(spec) {
		if v.treatment(g.cfg, host) == volumeRefused {
			return v.refused()
		}
	}
	return nil
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// findLayer finds the directory that takes the container's writes. An empty
// result means that the root file system is read-only.
func findLayer(mounts []mount.Mount) (string, error) {
	if len(mounts) != 1 {
		return "", unprotected("the root file system consists of %d mounts", len(mounts))
	}
	m := mounts[0]
	if slices.Contains(m.Options, "ro") {
		return "", nil
	}
	if m.Type != "overlay" {
		return "", unprotected("the root file system is %s; only overlay can be rolled back", m.Type)
	}
	for _, o := range m.Options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			return dir, nil
		}
	}
	return "", nil // an overlay of lower directories only is read-only
}

// ownNetNS makes sure that the container's network namespace is not the shim's:
// rules that we put there would be the host's. /proc/self would be the first
// thread's, which may be one that lives in the namespace of another container of
// the pod.
func ownNetNS(pid int) error {
	ours, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	if ours == theirs {
		return unprotected("the container uses the host's network namespace")
	}
	return nil
}
