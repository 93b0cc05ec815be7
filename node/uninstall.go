package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Uninstall takes away all that Install put onto the node, except for the state
// of containers that still run with our shim; they run on, and lose their
// protection when their shim is restarted. containerd is restarted if its
// configuration had our runtime.
func Uninstall(ctx context.Context, o Options) error {
	o, err := o.defaultsAndValidate()
	if err != nil {
		return err
	}
	changed, err := o.unconfigure()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if changed {
		if err := o.restart(ctx); err != nil {
			return err
		}
	}
	for _, path := range []string{o.Prefix, filepath.Dir(nodeFilePath)} {
		if err := os.RemoveAll(o.here(path)); err != nil {
			return err
		}
		o.Log("removed %s", path)
	}
	return nil
}

// unconfigure takes the import and the drop-in away, in this order, so that
// containerd finds a valid configuration at any time.
func (o Options) unconfigure() (changed bool, err error) {
	main, err := os.ReadFile(o.here(o.Containerd))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
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
	err = os.Remove(o.here(o.dropIn()))
	if errors.Is(err, fs.ErrNotExist) {
		return changed, nil
	}
	if err == nil {
		o.Log("removed %s", o.dropIn())
	}
	// Only if it was made for us: it is then empty.
	_ = os.Remove(o.here(o.DropIns))
	return true, err
}
