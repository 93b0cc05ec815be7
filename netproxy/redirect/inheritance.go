package redirect

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// inheritance is net.ipv4.tcp_fwmark_accept of a network namespace, for both
// families: a socket that is accepted has the mark of the SYN that it came from.
// A leg's SYN carries MarkSteer, so the replies of the application are routed to
// lo at once, and their packets need no rule. Otherwise the output chain marks each
// of them, and the kernel routes it once more.
type inheritance struct {
	file *os.File // stays with the namespace that it was opened in; nil: there is none
}

// inheritOn is ours: any value but 0 means yes, and the one that people write is 1.
const inheritOn, inheritOff = "5", "0"

// openInheritance must run in the namespace. Without the setting, or where it can't
// be written, the output chain does all the work.
func openInheritance() inheritance {
	f, err := os.OpenFile("/proc/sys/net/ipv4/tcp_fwmark_accept", os.O_RDWR, 0)
	if err != nil {
		return inheritance{}
	}
	return inheritance{file: f}
}

// set switches it, unless somebody else has switched it on.
func (h *inheritance) set(on bool) error {
	if h.file == nil {
		return nil
	}
	buf := make([]byte, 16)
	n, err := h.file.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", h.file.Name(), err)
	}
	from, to := inheritOff, inheritOn
	if !on {
		from, to = to, from
	}
	if strings.TrimSpace(string(buf[:n])) != from {
		return nil
	}
	if _, err := h.file.WriteAt([]byte(to), 0); err != nil {
		return fmt.Errorf("write %s: %w", h.file.Name(), err)
	}
	return nil
}

func (h *inheritance) close() {
	if h.file != nil {
		h.file.Close()
	}
}

// othersRouteByMark tells whether somebody else in the namespace has routing rules
// with marks, as service meshes do. Sockets that inherit such a mark would be routed
// in ways that nobody has planned.
func (r *routes) othersRouteByMark() (bool, error) {
	for _, f := range r.families {
		rules, err := r.h.RuleList(f)
		if err != nil {
			return false, fmt.Errorf("list routing rules: %w", err)
		}
		for _, rule := range rules {
			ours := rule.Table == routeTable && rule.Priority == rulePriority
			if !ours && (rule.Mark != 0 || rule.Mask != nil && *rule.Mask != 0) {
				return true, nil
			}
		}
	}
	return false, nil
}

// inheritLocked lets the application's sockets inherit marks while nobody minds.
func (r *Redirect) inheritLocked() error {
	others, err := r.routes.othersRouteByMark()
	if err != nil {
		return err
	}
	return r.marks.set(!others)
}
