package recovery

import (
	"bytes"
	"os"
	"strconv"
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
		stat, err := os.ReadFile(dir + "/" + t.Name() + "/stat")
		if err != nil {
			continue
		}
		// The state follows the command's name, which may contain anything but is
		// in parentheses.
		at := bytes.LastIndexByte(stat, ')')
		if at < 0 || at+2 >= len(stat) || !bytes.ContainsRune([]byte("SZX"), rune(stat[at+2])) {
			return false
		}
		if id, err := strconv.Atoi(t.Name()); err == nil && stat[at+2] == 'S' && !asleep(id) {
			return false
		}
	}
	return true
}
