package env

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a process that cannot be mistaken for a later one with its pid.
type process struct {
	Pid   int
	Start uint64 // clock ticks since boot, field 22 of /proc/PID/stat
}

// procStat reads what identifies a process; gone and zombie are errors.
func procStat(pid int) (start uint64, parent int, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The command's name in parentheses may itself hold blanks and parentheses.
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, 0, os.ErrProcessDone
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, parent, err
}

func (p process) alive() bool {
	if p.Pid <= 0 {
		return false
	}
	start, _, err := procStat(p.Pid)
	return err == nil && start == p.Start
}

// signal is no error when the process is gone.
func (p process) signal(sig syscall.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %d: %w", p.Pid, err)
	}
	return nil
}

func (p process) await(most time.Duration) (gone bool) {
	for deadline := time.Now().Add(most); p.alive(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func writeProcess(file string, pid int) error {
	start, _, err := procStat(pid)
	if err != nil {
		return err
	}
	data, err := json.Marshal(process{pid, start})
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}

func readProcess(file string) (process, error) {
	var p process
	data, err := os.ReadFile(file)
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(data, &p)
}

// eachProcess calls f for every process except this one and its ancestors.
func eachProcess(f func(pid int)) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	spare := map[int]bool{}
	for pid := os.Getpid(); pid > 0; {
		spare[pid] = true
		_, parent, err := procStat(pid)
		if err != nil {
			break
		}
		pid = parent
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && !spare[pid] {
			f(pid)
		}
	}
	return nil
}

// cmdline returns the base name of a process's program and its arguments.
func cmdline(pid int) (name string, args []string) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(data) == 0 {
		return "", nil
	}
	args = strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
	return filepath.Base(args[0]), args[1:]
}
