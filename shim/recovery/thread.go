package recovery

import (
	"bytes"
	"os"
	"strconv"
)

// threadState reads the state and the flags of a thread, of which task is the
// directory in /proc, see proc_pid_stat(5). Both are 0 if the kernel tells them in
// another form.
//
// Errors: the thread has gone.
func threadState(task string) (state byte, flags uint64, err error) {
	b, err := os.ReadFile(task + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// They follow the command's name, which may contain anything but is in parentheses.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 7 {
		return 0, 0, nil
	}
	if flags, err = strconv.ParseUint(string(f[6]), 10, 64); err != nil {
		return 0, 0, nil
	}
	return f[0][0], flags, nil
}
