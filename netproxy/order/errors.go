package order

import "errors"

var (
	// ErrOrderLost is returned by Poll when the ring has overflowed: events are
	// missing among those reported since the Poll before. Polling may go on.
	ErrOrderLost = errors.New("order of consumption lost: event ring overflowed")
	// ErrUnsupported is returned by Open when the tracepoint source was asked
	// for and the kernel cannot provide it.
	ErrUnsupported = errors.New("kernel cannot report consumption order")
	// ErrOptions is returned by Open for options that cannot be used.
	ErrOptions = errors.New("invalid order options")
	// ErrGone is returned by Consumed when the application's socket is not there.
	ErrGone = errors.New("application's socket is gone")
)
