package shim

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/crsc-io/crsc/shim/lifecycle"
	"github.com/crsc-io/crsc/shim/recovery"
)

// cleanupGuard removes what the guard of a container left outside its bundle,
// in a shim that is gone.
func cleanupGuard(ctx context.Context, namespace, id, bundle string) error {
	return recovery.Cleanup(ctx, namespace, id, bundle)
}

// cleanupPod removes what is left of the other containers of a pod whose shim is
// gone: their processes, and what their guards left. The bundle is the sandbox's,
// which has the same options; containerd may be removing theirs meanwhile.
func cleanupPod(ctx context.Context, namespace, sandbox, bundle string) error {
	orphans, err := recovery.Orphans(namespace, sandbox)
	errs := []error{err}
	for _, id := range orphans {
		_, err := lifecycle.Cleanup(ctx, id, namespace, bundle)
		errs = append(errs, err, recovery.Cleanup(ctx, namespace, id, filepath.Join(filepath.Dir(bundle), id)))
	}
	return errors.Join(errs...)
}
