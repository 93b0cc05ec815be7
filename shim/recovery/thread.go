package recovery

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// threadState reads the state and the flags of a thread, of which task is the
// directory in /proc, see proc_pid_stat(5). Both are 0 if the kernel tells them in
// another form.
//
// Errors: the thread has gone.
func threadState(task string) (state byte, flags uint64, err error) {
	f, err := statFields(task)
	if err != nil {
		return 0, 0, err
	}
	if len(f) < 7 {
		return 0, 0, nil
	}
	if flags, err = strconv.ParseUint(string(f[6]), 10, 64); err != nil {
		return 0, 0, nil
	}
	return f[0][0], flags, nil
}

// startOf returns when a process started, in clock ticks since the host did.
func startOf(pid int) (uint64, error) {
	task := fmt.Sprintf("/proc/%d", pid)
	f, err := statFields(task)
	if err != nil {
		return 0, err
	}
	if len(f) < 20 {
		return 0, fmt.Errorf("%s/stat has no time of start", task)
	}
	return strconv.ParseUint(string(f[19]), 10, 64)
}

// statFields are the fields of a stat file from the third on, the state. They follow
// the command's name, which may contain anything but is in parentheses.
func statFields(task string) ([][]byte, error) {
	b, err := os.ReadFile(task + "/stat")
	if err != nil {
		return nil, err
	}
	return bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]), nil
}
