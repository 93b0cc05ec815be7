package recovery

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// idle reports whether every thread of the container sleeps. A thread that waits
// for a processor or for a disk does not.
func (p *processes) idle() bool {
	b, err := os.ReadFile(p.procs)
	if err != nil {
		return false
	}
	for pid := range bytes.FieldsSeq(b) {
		if !sleeping(string(pid)) {
			return false
		}
	}
	return true
}

// sleeping reports whether all threads of a process sleep. One that is gone
// counts as such.
func sleeping(pid string) bool {
	dir := "/proc/" + pid + "/task"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return os.IsNotExist(err)
	}
	for _, t := range threads {
		state, _, err := threadState(dir + "/" + t.Name())
		if err != nil {
			continue
		}
		if strings.IndexByte("SZX", state) < 0 {
			return false
		}
		if id, err := strconv.Atoi(t.Name()); err == nil && state == 'S' && !asleep(id) {
			return false
		}
	}
	return true
}
