package config

// The annotations that decide what becomes of writable volumes, and of files
// that are open and have no name.
const (
	KeyVolumes       = Prefix + "volumes"
	KeySafeVolumes   = Prefix + "safe-volumes"
	KeyVolumeMaxSize = Prefix + "volume-max-size"
	KeyDeletedMax    = Prefix + "deleted-file-max-size"
)

// minVolumeSize is the least that a snapshotted volume may be limited to.
const minVolumeSize = 64 << 10

// CRIU takes the limit as a number of 32 bits.
const (
	minDeleted = 4 << 10
	maxDeleted = 4<<30 - 4<<10
)

// Volumes is what becomes of the writable volumes that are not declared safe.
type Volumes int

// The treatments of writable volumes.
const (
	VolumesAuto     Volumes = iota // the pod's own are snapshotted, others refused
	VolumesSnapshot                // all go back with the memory
	VolumesSafe                    // all may be newer than the memory
	VolumesRefuse                  // the container is not protected
)

// String returns the form that the annotation has.
func (v Volumes) String() string { return [...]string{"auto", "snapshot", "safe", "refuse"}[v] }

func volumeKeys() []key {
	return []key{{
		name: KeyVolumes, form: `"auto", "snapshot", "safe" or "refuse"`, def: "auto",
		doc: "What becomes of writable volumes that `safe-volumes` does not name. `snapshot`: they are captured with each checkpoint and rolled back with the memory, so nobody else may write to them. `safe`: they are left alone, since the application copes with files newer than its memory. `refuse`: the container is not protected. `auto`: an emptyDir (or a subPath of one) that no other container mounts writable, and the pod's /dev/shm, are snapshotted; any other is refused. Read-only mounts, and the files that the node puts into every container (/etc/hosts, /etc/hostname, /etc/resolv.conf, the termination log), are no concern of it.",
		parse: func(c *Config, v string) (err error) {
			c.Volumes, err = oneOf(v, VolumesAuto, VolumesSnapshot, VolumesSafe, VolumesRefuse)
			return err
		},
	}, {
		name: KeySafeVolumes, form: `a comma-separated list of absolute paths in the container such as "/cache,/var/tmp"`, def: "",
		doc: "Writable volumes whose owner declares that the application copes with files newer than its memory.",
		parse: func(c *Config, v string) (err error) {
			c.SafeVolumes, err = parseVolumes(v)
			return err
		},
	}, {
		name: KeyVolumeMaxSize, form: `a number of bytes of at least 64Ki with an optional suffix Ki, Mi, Gi or Ti such as "256Mi"`, def: "256Mi",
		doc: "Bytes of data that a snapshotted volume may hold. What changed since the last checkpoint is copied while the container is frozen. A container that starts with a larger volume is not protected; if one grows beyond it, checkpoints fail until it has shrunk.",
		parse: func(c *Config, v string) (err error) {
			c.VolumeMaxSize, err = sizeAtLeast(v, minVolumeSize)
			return err
		},
		rank: func(c *Config) float64 { return float64(c.VolumeMaxSize) },
	}, {
		name: KeyDeletedMax, form: `a number of bytes from 4Ki to 4194300Ki with an optional suffix Ki, Mi, Gi or Ti such as "64Mi"`, def: "64Mi",
		doc: "Largest file that is deleted and still open. Such files are copied into each checkpoint while the container is frozen; with a larger one checkpoints fail.",
		parse: func(c *Config, v string) error {
			n, err := sizeAtLeast(v, minDeleted)
			if err == nil && n > maxDeleted {
				err = errForm
			}
			c.DeletedMaxSize = n
			return err
		},
		rank: func(c *Config) float64 { return float64(c.DeletedMaxSize) },
	}}
}
