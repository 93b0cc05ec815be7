package task

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	grpc "google.golang.org/grpc/status"
)

// TestErrorsAreToldOnce: what a client shows of an error is its text.
func TestErrorsAreToldOnce(t *testing.T) {
	sentinel := errors.New("unknown key")
	for _, c := range []struct {
		err  error
		code codes.Code
		is   error
	}{
		{fmt.Errorf("%w: crsc.io/x: %w", errdefs.ErrInvalidArgument, sentinel), codes.InvalidArgument, errdefs.ErrInvalidArgument},
		{errors.Join(fmt.Errorf("a: %w", errdefs.ErrNotFound), fmt.Errorf("b: %w", sentinel)), codes.NotFound, errdefs.ErrNotFound},
		{fmt.Errorf("runc: %w", sentinel), codes.Unknown, errdefs.ErrUnknown},
		{fmt.Errorf("checkpoint: %w", context.DeadlineExceeded), codes.DeadlineExceeded, context.DeadlineExceeded},
	} {
		got := toGRPC(c.err)
		require.Equal(t, c.code, grpc.Code(got))
		native := errgrpc.ToNative(got)
		require.Equal(t, c.err.Error(), native.Error())
		require.ErrorIs(t, native, c.is)
	}
	require.NoError(t, toGRPC(nil))
}
