package shim

import (
	"context"

	"github.com/crsc-io/crsc/shim/recovery"
)

// cleanupGuard removes what the guard of a container left outside its bundle,
// in a shim that is gone.
func cleanupGuard(ctx context.Context, namespace, id, bundle string) error {
	return recovery.Cleanup(ctx, namespace, id, bundle)
}
