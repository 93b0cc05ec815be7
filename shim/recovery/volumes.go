package recovery

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/criu"
)

// nodeFiles are the files that containerd, the CRI and nerdctl put into every
// container, writable. The node writes them, not the workload.
var nodeFiles = []string{
	"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log",
	"/run/secrets/kubernetes.io/serviceaccount", "/var/run/secrets/kubernetes.io/serviceaccount",
}

// The directories that the kubelet and the CRI bind into containers, whatever
// their root directories are.
var (
	// terminationLog is what the kubelet reads of a container that has ended
	// (GetPodContainerDir in pkg/kubelet/kubelet_getters.go). Where the container
	// sees it is up to terminationMessagePath.
	terminationLog = regexp.MustCompile(`/pods/[^/]+/containers/[^/]+/[0-9a-f]{8}$`)
	// podShm is the /dev/shm that all containers of a pod mount
	// (getSandboxDevShm of containerd's CRI).
	podShm = regexp.MustCompile(`/sandboxes/[^/]+/shm$`)
)

// volume is a writable mount from outside of the container.
type volume struct {
	path   string // in the container
	source string // on the host; empty if the spec does not say
	at     location
	// host is where it can be reached whatever becomes of the source; empty
	// before it has been pinned.
	host string
}

// treatment is what becomes of a volume in a crash.
type treatment int

const (
	volumeRefused  treatment = iota
	volumeSafe               // left alone
	volumeSnapshot           // rolled back with the memory
)

// treatment decides by the configuration and by what kind of volume it is.
func (v volume) treatment(cfg *config.Config, host mountTable) treatment {
	switch {
	case slices.Contains(cfg.SafeVolumes, v.path), slices.Contains(nodeFiles, v.path), terminationLog.MatchString(v.source):
		return volumeSafe
	case cfg.Volumes == config.VolumesSafe:
		return volumeSafe
	case cfg.Volumes == config.VolumesSnapshot, cfg.Volumes == config.VolumesAuto && (v.ofPod() || v.source != "" && host.ofPod(v.source)):
		return volumeSnapshot
	}
	return volumeRefused
}

// ofPod says that all containers of the pod have it by default.
func (v volume) ofPod() bool { return v.path == "/dev/shm" && podShm.MatchString(v.source) }

func (v volume) refused() error {
	return unprotected("writable volume %s (crsc.io/volumes: snapshot rolls it back with the memory; name it in crsc.io/safe-volumes if it may be newer)", v.path)
}

// specVolumes lists the writable volumes of a spec.
func specVolumes(spec *specs.Spec) []volume {
	var out []volume
	for _, m := range spec.Mounts {
		if isBind(m) && !slices.Contains(m.Options, "ro") {
			out = append(out, volume{path: filepath.Clean("/" + m.Destination), source: m.Source})
		}
	}
	return out
}

// sortVolumes tells the writable volumes that are mounted into the container
// apart: those that are rolled back, and the paths of those left alone.
//
// Errors: ErrUnprotected for one that is neither.
func sortVolumes(cfg *config.Config, spec *specs.Spec, pinned []criu.PinnedMount) (snapshot []volume, safe []string, err error) {
	known := specVolumes(spec)
	host, err := readMountTable()
	if err != nil {
		return nil, nil, err
	}
	for _, m := range pinned {
		if m.ReadOnly {
			continue
		}
		v := volume{path: filepath.Clean("/" + m.Container), host: m.Host}
		// The last mount at a place is the visible one.
		for _, s := range slices.Backward(known) {
			if s.path == v.path {
				v.source = s.source
				break
			}
		}
		switch v.treatment(cfg, host) {
		case volumeRefused:
			return nil, nil, v.refused()
		case volumeSafe:
			safe = append(safe, v.path)
		case volumeSnapshot:
			if err := v.capturable(); err != nil {
				return nil, nil, err
			}
			v.at = host.locate(v.source)
			snapshot = append(snapshot, v)
		}
	}
	return snapshot, safe, nil
}

// fuseMagic is FUSE_SUPER_MAGIC of linux/magic.h.
const fuseMagic = 0x65735546

// capturable says why a volume can't be captured while the container is frozen.
func (v volume) capturable() error {
	var st unix.Stat_t
	if err := unix.Lstat(v.host, &st); err != nil {
		return fmt.Errorf("volume %s: %w", v.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unprotected("volume %s is not a directory, so it can't be snapshotted; name it in crsc.io/safe-volumes if it may be newer than memory", v.path)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(v.host, &fs); err != nil {
		return fmt.Errorf("volume %s: %w", v.path, err)
	}
	if fs.Type == fuseMagic {
		// Who serves it may be what is frozen.
		return unprotected("volume %s is a FUSE file system, which can't be snapshotted", v.path)
	}
	return nil
}
