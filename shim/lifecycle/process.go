package lifecycle

import (
	"context"
	"time"

	"github.com/containerd/containerd/v2/pkg/stdio"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Exit is the end of a process.
type Exit struct {
	// Pid is the process that ended, in the shim's PID namespace.
	Pid int
	// Status is the exit code, or 128 plus the signal that killed it.
	Status int
	// At is when the shim reaped it.
	At time.Time
	// OOM says that the process was killed by SIGKILL just after its cgroup was
	// found out of memory. Known for init only.
	OOM bool
}

// process is the init process or an exec. All fields below the first group are
// guarded by the container's mutex.
type process struct {
	id    string // exec ID, "" for init
	stdio stdio.Stdio
	spec  *specs.Process // nil for init

	phase    Phase
	pid      int
	exit     Exit
	terminal *terminal // nil without one
	streams  *streams
	// stdinClosed: the client has asked for the end of stdin, perhaps before the
	// stream was there.
	stdinClosed bool
	// done is closed when exit is final.
	done chan struct{}
	// holding: the process is being started, and its exit must not be handled
	// before its start has been announced. held is the exit that came meanwhile.
	holding bool
	held    *Exit
	// failed: a start did not come to life, and there will be no other.
	failed bool
	// onExit, if set, takes the exit instead of the state machine.
	onExit func(Exit)
}

func newProcess(id string, io stdio.Stdio) *process {
	return &process{id: id, stdio: io, phase: PhaseCreated, done: make(chan struct{})}
}

// wait returns when the exit of p is final.
//
// Errors: the context's.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closeStdin lets stdin end once the client has closed its side. It has no
// effect before the process was started.
func closeStdin(s *streams, t *terminal) error {
	switch {
	case s != nil:
		return s.closeStdin()
	case t != nil:
		return t.closeStdin()
	}
	return nil
}

// ProcessState is a snapshot of one process.
type ProcessState struct {
	// ID is the container's ID for init, the exec ID otherwise.
	ID    string
	Pid   int
	Phase Phase
	// Pausing says that a pause was asked for and is not finished.
	Pausing bool
	Stdio   stdio.Stdio
	// Exit is zero until the exit is final.
	Exit Exit
}
