package task

import (
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

// toGRPC gives err the code of its class. Its text goes with it once: errgrpc would
// send those of the errors it wraps as well, and clients show them behind it.
func toGRPC(err error) error {
	if class, ok := errdefs.Resolve(err).(interface{ WithMessage(msg string) error }); ok {
		err = class.WithMessage(err.Error())
	}
	return errgrpc.ToGRPC(err)
}
