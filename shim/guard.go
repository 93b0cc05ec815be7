package shim

import (
	"context"

	"github.com/crsc-io/crsc/shim/lifecycle"
	"github.com/crsc-io/crsc/shim/recovery"
)

// newGuard decides how a new container is protected. It is the one place where
// the task service meets recovery; a container without a guard is a plain runc
// container.
func newGuard(ctx context.Context, c *lifecycle.Container) (lifecycle.Guard, error) {
	return recovery.NewGuard(ctx, c)
}

// cleanupGuard removes what the guard of a container left outside its bundle,
// in a shim that is gone.
func cleanupGuard(ctx context.Context, namespace, id, bundle string) error {
	return recovery.Cleanup(ctx, namespace, id, bundle)
}
