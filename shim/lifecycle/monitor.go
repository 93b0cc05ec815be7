package lifecycle

import (
	"os/exec"
	"runtime"

	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/containerd/go-runc"
)

// monitor is containerd's reaper for go-runc, with a StartLocked that does what
// go-runc asks for: the thread that forks outlives the child. runc is started
// with SysProcAttr.Pdeathsig, which the kernel sends when the thread that forked
// ends (prctl(2), PR_SET_PDEATHSIG). containerd's own StartLocked gives the
// thread back once the child runs; when the Go runtime then lends that thread to
// a goroutine that enters a network namespace and ends with it, runc is killed
// in the middle of its work.
type monitor struct {
	*reaper.Monitor
	starts chan func()
}

// NewRuncMonitor returns what go-runc's Monitor has to be in a shim whose
// children are reaped by containerd's reaper. It keeps one thread for ever.
func NewRuncMonitor() runc.ProcessMonitor {
	m := &monitor{Monitor: reaper.Default, starts: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for start := range m.starts {
			start()
		}
	}()
	return m
}

// StartLocked starts a child that ends with the shim and with nothing else.
func (m *monitor) StartLocked(cmd *exec.Cmd) (exits chan runc.Exit, err error) {
	done := make(chan struct{})
	m.starts <- func() {
		defer close(done)
		exits, err = m.Start(cmd)
	}
	<-done
	return exits, err
}
