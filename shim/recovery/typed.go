package recovery

import (
	"syscall"
	"time"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

// typedAway says that an exit was asked for in the container's terminal: it was
// hung up, or somebody typed Ctrl-C, or exit, just before. A death by any other
// signal is a crash: nobody can type it.
func (g *guard) typedAway(e lifecycle.Exit) bool {
	typed, hungUp := g.c.Typed()
	switch sig := syscall.Signal(e.Status - 128); sig {
	case syscall.SIGHUP:
		return hungUp || time.Since(typed) < echo
	case syscall.SIGINT, syscall.SIGQUIT:
		return time.Since(typed) < echo
	default:
		return e.Status < 128 && (hungUp || time.Since(typed) < echo)
	}
}
