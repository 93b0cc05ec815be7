package netproxy

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// delays is how long the loop's thread has waited for a processor while it could have
// run, as the scheduler counts it (/proc/PID/task/TID/schedstat,
// Documentation/scheduler/sched-stats.rst). The zero value is ready for use; it belongs
// to the loop.
type delays struct {
	tid    int
	file   int // of the thread; open while tid is not 0
	waited time.Duration
	buf    [64]byte
}

// since is how long it has waited since the last call. ok is false while nothing is
// known: at first, on another thread than before, and where the kernel does not count.
func (d *delays) since() (waited time.Duration, ok bool) {
	if tid := unix.Gettid(); tid != d.tid {
		d.close()
		file, err := unix.Open(fmt.Sprintf("/proc/self/task/%d/schedstat", tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, false
		}
		d.tid, d.file = tid, file
		d.waited, _ = d.read()
		return 0, false
	}
	now, ok := d.read()
	waited, d.waited = now-d.waited, now
	return waited, ok
}

// read returns what the thread has waited in all.
func (d *delays) read() (waited time.Duration, ok bool) {
	n, err := unix.Pread(d.file, d.buf[:], 0)
	if err != nil {
		return 0, false
	}
	// Time on a processor and time waiting for one, in ns; how often it had one.
	var fields [3]int64
	at := 0
	for _, b := range d.buf[:n] {
		switch {
		case b >= '0' && b <= '9':
			fields[at] = fields[at]*10 + int64(b-'0')
		case at < len(fields)-1:
			at++
		}
	}
	return time.Duration(fields[1]), fields[2] > 0
}

func (d *delays) close() {
	if d.tid != 0 {
		_ = unix.Close(d.file)
	}
	*d = delays{}
}
