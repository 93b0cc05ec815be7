package redirect

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// Redirect is an installed redirection. Its methods may be called concurrently.
type Redirect struct {
	opts Options

	arbiter *arbiter // nil when every listener is the application's
	watcher *watcher // nil when made by Uninstall

	mu     sync.Mutex // guards all below; a netlink exchange happens under it
	ended  bool       // nothing may be repaired any more
	table  *table
	routes *routes
	marks  inheritance
	// known are the intercepted addresses as last seen, to put back when
	// somebody flushes the ruleset.
	known []netip.AddrPort
	// flows are the outgoing connections that are redirected, for the same.
	flows map[Flow]struct{}
}

// Install redirects as o says. What an earlier Install with the same suffix
// left behind is replaced in one transaction. ErrOptions, ErrKernel, or a
// netlink error; after an error nothing is left installed.
func Install(o Options) (*Redirect, error) {
	o.ExcludePrefixes = slices.Clone(o.ExcludePrefixes)
	if err := o.defaultsAndValidate(); err != nil {
		return nil, err
	}
	r, err := open(o.NetNS, o.Suffix)
	if err != nil {
		return nil, err
	}
	r.opts, r.known = o, slices.Clone(o.Intercept)
	r.opts.ExcludePorts = slices.Clone(o.ExcludePorts)
	if o.Owns != nil {
		if r.arbiter, err = newArbiter(r, o.NetNS); err != nil {
			r.closeLocked()
			return nil, err
		}
		r.arbiter.start()
	}
	if r.watcher, err = watch(o.NetNS); err == nil {
		r.watcher.start(r.repair)
		r.mu.Lock()
		err = r.applyLocked()
		r.mu.Unlock()
	}
	if err != nil {
		return nil, errors.Join(err, r.Remove())
	}
	return r, nil
}

// Uninstall removes what Install with that suffix made in the namespace, for a
// process that did not make it itself. Nothing there is no error.
func Uninstall(ns int, suffix string) error {
	r, err := open(ns, suffix)
	if err != nil {
		return err
	}
	return r.Remove()
}

// open makes the netlink sockets, which belong to the namespace for ever.
func open(ns int, suffix string) (*Redirect, error) {
	r := &Redirect{table: newTable(suffix), flows: map[Flow]struct{}{}}
	err := netns.Do(ns, func() error {
		if err := r.table.dial(); err != nil {
			return err
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			r.table.conn.CloseLasting()
			return err
		}
		r.routes = &routes{h: h, families: []int{unix.AF_INET}}
		if fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
			unix.Close(fd)
			r.routes.families = append(r.routes.families, unix.AF_INET6)
		}
		r.marks = openInheritance()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return r, nil
}

// Remove takes the redirection away and releases the Redirect. Routing rules
// go last: with the output chain but without them the application's replies
// would leave for clients that do not know them.
func (r *Redirect) Remove() error {
	r.mu.Lock()
	r.ended = true
	errs := []error{r.removeLocked()}
	r.mu.Unlock()
	if r.watcher != nil {
		errs = append(errs, r.watcher.close())
	}
	if r.arbiter != nil {
		errs = append(errs, r.arbiter.close())
	}
	return errors.Join(append(errs, r.closeLocked())...)
}

// repair is Check for the watcher.
func (r *Redirect) repair() {
	repaired, err := r.Check()
	if err != nil {
		r.opts.Log.WithError(err).Warn("redirect: repair")
	}
	if repaired {
		r.opts.Log.Warn("redirect: somebody had taken away routing rules, routes or the loopback interface; put back")
	}
}

// Check puts the redirection back if somebody has taken it away, as a whole or
// in part, and tells whether that was so. Connections live on.
func (r *Redirect) Check() (repaired bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false, nil
	}
	tableOK, err := r.table.complete()
	if err != nil {
		return false, err
	}
	routesOK, err := r.routes.complete()
	if err != nil {
		return false, err
	}
	if tableOK {
		if known, err := r.table.intercepted(); err == nil {
			r.known = known
		}
	}
	if tableOK && routesOK {
		return false, r.inheritLocked()
	}
	return true, r.applyLocked()
}

// Intercepted returns the addresses whose connections come to the listener, sorted.
func (r *Redirect) Intercepted() ([]netip.AddrPort, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, err := r.table.intercepted()
	if err != nil {
		return nil, err
	}
	r.known = known
	return slices.Clone(known), nil
}

// Intercept redirects the addresses from now on, listened on or not.
func (r *Redirect) Intercept(addrs ...netip.AddrPort) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range addrs {
		if !slices.Contains(r.known, a) {
			r.known = append(r.known, a)
		}
	}
	if err := r.table.add(r.table.sets, addrs); err != nil {
		return fmt.Errorf("intercept %v: %w", addrs, err)
	}
	return nil
}

// intercepts reports whether connections to the address are redirected.
func (r *Redirect) intercepts(addr netip.AddrPort) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.known, addr)
}

// leaveAlone lets connections to an address pass for a while.
func (r *Redirect) leaveAlone(addr netip.AddrPort) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.table.add(r.table.others, []netip.AddrPort{addr}); err != nil {
		return fmt.Errorf("leave %v alone: %w", addr, err)
	}
	return nil
}

// Forget ends the interception of the addresses, which begins anew at the next
// SYN if the application listens there. Only for addresses without legs: the
// application's replies on a leg would go out to the client.
func (r *Redirect) Forget(addrs ...netip.AddrPort) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = slices.DeleteFunc(r.known, func(a netip.AddrPort) bool { return slices.Contains(addrs, a) })
	if err := r.table.forget(r.table.sets, addrs); err != nil {
		return fmt.Errorf("forget %v: %w", addrs, err)
	}
	return nil
}

// ExcludePort ends the interception of a local port for good, for instance
// because its listener turns out to belong to another container of the pod.
// The restriction of Forget holds.
func (r *Redirect) ExcludePort(port uint16) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.opts.ExcludePorts, port) {
		r.opts.ExcludePorts = append(r.opts.ExcludePorts, port)
	}
	if err := r.table.conn.SetAddElements(r.table.ports, []nftables.SetElement{{Key: be16(port)}}); err != nil {
		return err
	}
	if err := r.table.conn.Flush(); err != nil {
		return fmt.Errorf("exclude port %d: %w", port, err)
	}
	known, err := r.table.intercepted()
	if err != nil {
		return err
	}
	known = slices.DeleteFunc(known, func(a netip.AddrPort) bool { return a.Port() != port })
	r.known = slices.DeleteFunc(r.known, func(a netip.AddrPort) bool { return a.Port() == port })
	return r.table.forget(r.table.sets, known)
}

// applyLocked installs everything: routes first, so that no packet is marked
// that has nowhere to go.
func (r *Redirect) applyLocked() error {
	if err := r.routes.install(); err != nil {
		return err
	}
	var queue uint16
	if r.arbiter != nil {
		queue = r.arbiter.queue.Queue()
	}
	if err := r.table.replace(&r.opts, queue, r.known, slices.Collect(maps.Keys(r.flows))); err != nil {
		return err
	}
	// Another redirection that ends may have removed them before it saw our table.
	if err := r.routes.install(); err != nil {
		return err
	}
	return r.inheritLocked()
}

// removeLocked removes the table, and the rules and routes unless another
// redirection in the namespace needs them. Whoever installs puts them in place
// again after its table, so one of the two sees the other.
func (r *Redirect) removeLocked() error {
	if err := r.table.remove(); err != nil {
		return err
	}
	if last, err := r.table.alone(); err != nil || !last {
		return err
	}
	if err := errors.Join(r.marks.set(false), r.routes.remove()); err != nil {
		return err
	}
	if last, err := r.table.alone(); err != nil || last {
		return err
	}
	return errors.Join(r.routes.install(), r.inheritLocked())
}

func (r *Redirect) closeLocked() error {
	r.routes.h.Close()
	r.marks.close()
	return r.table.conn.CloseLasting()
}
