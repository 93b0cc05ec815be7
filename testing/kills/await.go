package kills

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
)

// Await returns when a container is protected and try, which asks whether it
// serves, has succeeded; the error says what was missing after limit.
func Await(ctx context.Context, e *env.Env, id string, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		s, err := status.Read(filepath.Dir(e.StatusFile(id)))
		if err == nil && !s.Protected {
			err = fmt.Errorf("unprotected: %s", s.Reason)
		}
		if err == nil {
			err = try(ctx)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve: %w", id, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
