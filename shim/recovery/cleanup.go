package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// Cleanup removes what a container's guard left when its shim was killed: the
// rules in the network namespace, if that still exists, the pins, the journal's key,
// the tmpfs for checkpoints, and the state. A container that had no guard left nothing.
func Cleanup(_ context.Context, namespace, id, _ string) error {
	node, err := config.Load("")
	if err != nil {
		return fmt.Errorf("clean up after %s: %w", id, err)
	}
	dir, err := stateDir(node.StateDir, namespace, id)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var errs []error
	pinned := filepath.Join(dir, "pins")
	pins, err := criu.OpenPins(pinned)
	switch {
	case err == nil:
		errs = append(errs, uninstall(pins.NetNS(), tableName(namespace, id)))
	case !errors.Is(err, os.ErrNotExist):
		errs = append(errs, err)
	}
	errs = append(errs, criu.RemovePins(pinned), destroySecret(dir), removeMemory(filepath.Join(dir, memoryName)), os.RemoveAll(dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after %s: %w", id, err)
	}
	return nil
}

// uninstall removes our rules from a network namespace that outlives the
// container, such as a pod's.
func uninstall(netns, table string) error {
	if netns == "" {
		return nil
	}
	f, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer f.Close()
	return redirect.Uninstall(int(f.Fd()), table)
}
