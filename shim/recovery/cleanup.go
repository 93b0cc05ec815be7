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

// stateFile, in the bundle, names the state directory: the node file may name
// another one, or be broken, when the state has to be removed.
const stateFile = "crsc-state"

// noteState writes the stateFile.
func (g *guard) noteState() error {
	return os.WriteFile(filepath.Join(g.c.Bundle(), stateFile), []byte(g.dir), 0o600)
}

// notedState is the state directory of a container by its bundle, if that tells, or
// by the node file.
func notedState(namespace, id, bundle string) (string, error) {
	b, err := os.ReadFile(filepath.Join(bundle, stateFile))
	if dir := string(b); err == nil && filepath.IsAbs(dir) {
		if same, err := stateDir(filepath.Dir(filepath.Dir(dir)), namespace, id); err == nil && same == dir {
			return dir, nil
		}
	}
	node, err := config.Load("")
	if err != nil {
		return "", err
	}
	return stateDir(node.StateDir, namespace, id)
}

// Cleanup removes what a container's guard left when its shim was killed: the
// rules in the network namespace, if that still exists, the pins, the journal's key,
// the tmpfs for checkpoints, and the state. A container that had no guard left nothing.
func Cleanup(_ context.Context, namespace, id, bundle string) error {
	dir, err := notedState(namespace, id, bundle)
	if err != nil {
		return fmt.Errorf("clean up after %s: %w", id, err)
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
