package criu

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mountLine is what matters of one line of /proc/PID/mountinfo (proc(5)).
type mountLine struct {
	id     string // in the kernel
	parent string // id of the mount that it is on
	root   string // within its file system
	target string // as the process sees it
	fstype string
	device string // major:minor
	ro     bool   // the mount, not the file system
	flags  uint32 // of the mount: MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOSYMFOLLOW
	shared bool   // with other mount namespaces
	slave  bool   // of mounts in other mount namespaces
}

// readMounts returns the mounts of a process, in order.
func readMounts(pid int) ([]mountLine, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var mounts []mountLine
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		m, ok := parseMount(sc.Text())
		if !ok {
			return nil, fmt.Errorf("%s: cannot parse %q", f.Name(), sc.Text())
		}
		mounts = append(mounts, m)
	}
	return mounts, sc.Err()
}

func parseMount(line string) (mountLine, bool) {
	left, right, ok := strings.Cut(line, " - ")
	// The kernel escapes what separates fields, and no other space: a path may have
	// others.
	l, r := strings.Split(left, " "), strings.Split(right, " ")
	if !ok || len(l) < 6 || r[0] == "" {
		return mountLine{}, false
	}
	m := mountLine{id: l[0], parent: l[1], device: l[2], root: unescape(l[3]), target: unescape(l[4]), fstype: r[0]}
	known := map[string]uint32{"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "nosymfollow": unix.MS_NOSYMFOLLOW}
	for opt := range strings.SplitSeq(l[5], ",") {
		m.flags |= known[opt]
	}
	m.ro = m.flags&unix.MS_RDONLY != 0
	for _, field := range l[6:] {
		m.shared = m.shared || strings.HasPrefix(field, "shared:")
		m.slave = m.slave || strings.HasPrefix(field, "master:")
	}
	return m, true
}

// unescape undoes the kernel's octal escapes of space, tab, newline, backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
