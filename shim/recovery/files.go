package recovery

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/layer"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

// tree is one directory tree that goes back with the memory.
type tree struct {
	name   string // directory below a checkpoint
	dir    string // where it is on the host
	limits layer.Limits
	volume volume // a zero one if the tree is none
}

// limit says in the user's terms that the tree is too large.
func (t *tree) limit(err error) error {
	if t.volume.path != "" && errors.Is(err, layer.ErrLimit) {
		return unprotected("volume %s is larger than crsc.io/volume-max-size allows (%s): %v",
			t.volume.path, config.FormatSize(t.limits.MaxBytes), err)
	}
	return fmt.Errorf("capture %s: %w", t.dir, err)
}

// files are the trees of a container: its writable layer, its tmpfs mounts and
// its snapshotted volumes.
type files struct {
	rootfs string
	mounts []mount.Mount
	trees  []tree
	upper  bool // trees[0] is the upper directory of the mounted overlay
}

func newFiles(rootfs string, mounts []mount.Mount, upper string, scratch []criu.PinnedMount) *files {
	f := &files{rootfs: rootfs, mounts: mounts, upper: upper != ""}
	if upper != "" {
		f.trees = append(f.trees, tree{name: "layer", dir: upper})
	}
	for i, m := range scratch {
		f.trees = append(f.trees, tree{name: "scratch-" + strconv.Itoa(i), dir: m.Host})
	}
	return f
}

// addVolumes makes volumes go back with the memory, as long as none holds more
// than maxBytes of data.
func (f *files) addVolumes(volumes []volume, maxBytes int64) {
	for i, v := range volumes {
		f.trees = append(f.trees, tree{
			name: "volume-" + strconv.Itoa(i), dir: v.host, limits: layer.Limits{MaxBytes: maxBytes}, volume: v,
		})
	}
}

// drafts are captures for which everything is prepared that needs no frozen
// container.
type drafts []*layer.Draft

// prepare begins to capture all trees below dst; prev is the checkpoint before,
// or empty.
func (f *files) prepare(dst, prev string) (_ drafts, err error) {
	var ds drafts
	defer func() {
		if err != nil {
			err = errors.Join(err, ds.discard())
		}
	}()
	for _, t := range f.trees {
		before := ""
		if prev != "" {
			before = filepath.Join(prev, t.name)
		}
		d, err := layer.Prepare(filepath.Join(dst, t.name), before, t.limits)
		if err != nil {
			return nil, fmt.Errorf("capture %s: %w", t.dir, err)
		}
		ds = append(ds, d)
	}
	return ds, nil
}

// capture copies the trees. The container is frozen.
func (f *files) capture(ctx context.Context, ds drafts) error {
	for i, t := range f.trees {
		if _, err := ds[i].Capture(ctx, t.dir); err != nil {
			return t.limit(err)
		}
	}
	return nil
}

// discard removes what was not captured.
func (ds drafts) discard() error {
	var errs []error
	for _, d := range ds {
		errs = append(errs, d.Discard())
	}
	return errors.Join(errs...)
}

// sync makes the captures in dir durable, and keeps their packs few.
func (f *files) sync(dir string) error {
	for _, t := range f.trees {
		if err := layer.Sync(filepath.Join(dir, t.name)); err != nil {
			return fmt.Errorf("sync the copy of %s: %w", t.dir, err)
		}
	}
	return nil
}

// rollback puts all trees back to what they were at the checkpoint in src. The
// container is dead. The overlay is taken away while its upper directory
// changes under it: the kernel leaves the result undefined otherwise.
//
// owners is for a checkpoint of a container that had other users.
func (f *files) rollback(ctx context.Context, src string, owners *layer.Owners) error {
	for i, t := range f.trees {
		snap := filepath.Join(src, t.name)
		if owners == nil {
			same, err := layer.Same(snap, t.dir)
			if err != nil {
				return fmt.Errorf("roll back %s: %w", t.dir, err)
			}
			if same {
				continue
			}
		}
		if t.volume.ofPod() {
			pid, err := userOf(t.dir)
			if err == nil && pid != 0 {
				err = fmt.Errorf("process %d outside of the container uses it", pid)
			}
			if err != nil {
				return fmt.Errorf("roll back %s: %w", t.volume.path, err)
			}
		}
		back := func() error {
			_, err := layer.RollbackAs(ctx, snap, t.dir, owners)
			return err
		}
		var err error
		if i == 0 && f.upper {
			err = f.unmounted(back)
		} else {
			err = back()
		}
		if err != nil {
			return fmt.Errorf("roll back %s: %w", t.dir, err)
		}
	}
	return nil
}

// unmounted runs fn with the root file system unmounted.
func (f *files) unmounted(fn func() error) error {
	if err := mount.UnmountAll(f.rootfs, 0); err != nil {
		// Something still holds it, for instance an exec's open file.
		if err = mount.UnmountAll(f.rootfs, detach); err != nil {
			return fmt.Errorf("unmount %s: %w", f.rootfs, err)
		}
	}
	err := fn()
	// Whatever happened, the bundle gets its root file system back.
	if merr := lifecycle.MountAll(f.mounts, f.rootfs); merr != nil {
		return errors.Join(err, fmt.Errorf("mount %s: %w", f.rootfs, merr))
	}
	return err
}

// detach is MNT_DETACH of umount2(2).
const detach = 2
