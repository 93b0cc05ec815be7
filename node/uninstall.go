package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/config"
)

// Uninstall takes away all that Install put onto the node; where the programs are
// a package's, node file and state stay as well, for whoever removes that.
// containerd is restarted if its configuration had our runtime.
//
// Errors: ErrInUse while containers run with our shim. containerd could neither
// probe nor remove them any more.
func Uninstall(ctx context.Context, o Options) error {
	o, err := o.defaultsAndValidate()
	if err != nil {
		return err
	}
	if n, err := o.shims(); err != nil {
		return err
	} else if n > 0 {
		return fmt.Errorf("%w: %d shims run; move the pods of the RuntimeClass to other nodes, or delete them", ErrInUse, n)
	}
	old, _ := o.daemon() // what does not run now is another once it does
	if _, _, err := o.way(old); err != nil {
		return err
	}
	changed, err := o.unconfigure()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if changed {
		if err := o.restart(ctx, old); err != nil {
			return err
		}
	}
	if o.Programs != "" {
		return nil
	}
	return o.removeFiles()
}

// removeFiles removes programs, state and node file, in this order: the last
// says where the state is.
func (o Options) removeFiles() error {
	state := config.DefaultStateDir
	n, err := config.Load(o.here(nodeFilePath))
	if err == nil {
		state = n.StateDir
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("what is kept in its state_dir is not removed: %w", err)
	}
	for _, path := range []string{o.Prefix, state} {
		if !ours(path) { // an administrator may have chosen one with other things in it
			o.Log("left %s as it is: by its name it is not for crsc alone", path)
			continue
		}
		if err := removeTree(o.here(path)); err != nil {
			return err
		}
		o.Log("removed %s", path)
	}
	err = removeIfThere(o.here(nodeFilePath))
	_ = os.Remove(filepath.Dir(o.here(nodeFilePath))) // only if nothing else is in it
	return err
}

// removeTree removes what is in a directory, and the directory unless it is a
// mount point.
func removeTree(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	if err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// shims counts the processes that run our shim, which must be to be seen from
// here. Containers of the node can't make up one: only the node's own root
// directory counts.
func (o Options) shims() (n int, err error) {
	root, err := os.Stat(o.here("/"))
	if err != nil {
		return 0, err
	}
	// The kernel's names have no links in them, such as /opt is on some nodes.
	shim := filepath.Join("/", strings.TrimPrefix(o.here(o.shim()), o.Host))
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return 0, err
	}
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(exe, " (deleted)") != shim {
			continue
		}
		if st, err := os.Stat(filepath.Join(filepath.Dir(link), "root")); err == nil && os.SameFile(st, root) {
			n++
		}
	}
	return n, nil
}

// unconfigure takes the import and the drop-in away, in this order, so that
// containerd finds a valid configuration at any time.
func (o Options) unconfigure() (changed bool, err error) {
	main, err := os.ReadFile(o.here(o.Containerd))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if o.layout.remedy != "" { // it is not ours to change
		return o.removeDropIn()
	}
	rest, err := removeImport(main, o.dropIn())
	if err != nil {
		return false, fmt.Errorf("%s: %w", o.Containerd, err)
	}
	switch {
	case string(rest) == newMain:
		changed, err = true, removeIfThere(o.here(o.Containerd))
	case main != nil:
		changed, err = put(o.here(o.Containerd), rest, 0o644)
	}
	if err != nil {
		return changed, err
	}
	removed, err := o.removeDropIn()
	// Only if it was made for us: it is then empty.
	_ = os.Remove(o.here(o.DropIns))
	return changed || removed, err
}

func (o Options) removeDropIn() (changed bool, err error) {
	err = os.Remove(o.here(o.dropIn()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		o.Log("removed %s", o.dropIn())
	}
	return true, err
}
