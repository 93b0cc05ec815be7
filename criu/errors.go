package criu

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNotFound is returned by Find and Probe when there is no CRIU binary.
	ErrNotFound = errors.New("criu binary not found")
	// ErrUnsupported is returned when CRIU, the kernel or the shape of the
	// container rules a checkpoint out for good. Trying again cannot help.
	ErrUnsupported = errors.New("not supported")
	// ErrCanceled is returned by Dump when its context ended. The container
	// runs on and the images are incomplete.
	ErrCanceled = errors.New("canceled")
	// ErrHook is returned when a hook of the caller refused. It wraps, together
	// with the hook's own error, around the operation.
	ErrHook = errors.New("hook failed")
	// ErrCorrupt is returned for images that are torn, malformed or larger than
	// the bounds of this package.
	ErrCorrupt = errors.New("corrupt image")
	// ErrWrongNamespace is returned by Restore when a restored process is not in
	// the network namespace it was dumped in. The processes have been killed.
	ErrWrongNamespace = errors.New("restored into the wrong network namespace")
	// ErrRunning is returned by Restore when the container still has processes.
	ErrRunning = errors.New("container is running")
	// ErrDied is returned by Dump when the container's init died meanwhile. The
	// images are incomplete; a complete checkpoint from before serves.
	ErrDied = errors.New("container died during the dump")
	// ErrTorn is returned by Dump when CRIU was killed in the middle. What it had
	// done to the container was undone as far as possible, and the container
	// usually runs on; if CRIU was just then running code of its own in a task,
	// that task may crash.
	ErrTorn = errors.New("criu died during the dump")
	// ErrStuck is returned when CRIU did not answer for so long as the options'
	// Patience allows, and was killed. A Dump ends with ErrTorn as well then.
	ErrStuck = errors.New("criu stands still")
	// ErrBusy is returned by Dump when the container began to use something
	// (System V IPC) just then. The next Dump sees it in time.
	ErrBusy = errors.New("container changed while the dump began")
	// ErrPaused is returned by Dump and Restore when the container's freezer
	// cgroup is not thawed: CRIU would wait for its tasks for ever.
	ErrPaused = errors.New("container is paused")
)

// Error is a failure of CRIU itself. Its text is one line; the whole log that
// CRIU wrote is kept in Log for the operator.
type Error struct {
	Op   string // "dump" or "restore"
	Line string // the line of the log that decided, see DecisiveLine; may be empty
	Log  string // everything CRIU logged
	Err  error  // how the failure showed itself
}

func (e *Error) Error() string {
	if e.Line == "" {
		return fmt.Sprintf("criu %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("criu %s: %v: %s", e.Op, e.Err, e.Line)
}

func (e *Error) Unwrap() error { return e.Err }

// DecisiveLine returns the line of a CRIU log that names the cause of a
// failure, without its timestamp: the first "Error" line that is not one of the
// consequences CRIU reports while it unwinds. If there are only such lines the
// first of them is returned, and "" if there is no error in the log but harmless
// ones.
func DecisiveLine(log string) string {
	first := ""
	for line := range strings.Lines(log) {
		at := strings.Index(line, "Error (")
		if at < 0 {
			continue
		}
		line = strings.TrimSpace(line[at:])
		if isHarmless(line) {
			continue
		}
		if first == "" {
			first = line
		}
		if !isConsequence(line) {
			return line
		}
	}
	return first
}

// isHarmless tells the complaint of a CRIU without CAP_SYS_RESOURCE.
func isHarmless(line string) bool { return strings.Contains(line, "Can't setup RLIMIT_NOFILE") }

// isConsequence tells the lines that every failing run ends with, and the
// complaints about optional helpers that come before the cause.
func isConsequence(line string) bool {
	for _, s := range []string{
		"Dumping FAILED", "Restoring FAILED", "Dumping processes",
		"RPC client reported script error", "Can't send response",
		"killed by signal", "exited, status", "Aborting restore",
	} {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}
