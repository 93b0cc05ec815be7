package redirect

import (
	"fmt"
	"net/netip"
	"regexp"

	"github.com/sirupsen/logrus"
)

// Options say what to redirect.
type Options struct {
	// NetNS is a descriptor of the container's network namespace, or
	// netns.Current. It is used only during the call.
	NetNS int
	// Suffix makes the table's name, crsc_<suffix>: 1 to 64 letters, digits or '_'.
	Suffix string
	// Listener receives the connections.
	Listener *Listener
	// ExcludePorts are local ports that are never redirected.
	ExcludePorts []uint16
	// ExcludePrefixes are clients whose connections are never redirected.
	// IPv6 link-local is always among them.
	ExcludePrefixes []netip.Prefix
	// Owns tells whose the listening sockets with these inodes are. Without it,
	// every listener of the namespace is the application's. It is called when
	// connections begin to come to a listener not seen before, on a goroutine of
	// the Redirect, and may take milliseconds.
	Owns func(inodes []uint32) Ownership
	// Loopback redirects also what others in the namespace send to the
	// application over lo; what it sends to itself passes. It needs Owns.
	Loopback bool
	// Log receives what an operator should see.
	Log *logrus.Entry
	// Intercept are addresses to redirect from the start, whether or not
	// somebody listens there yet.
	Intercept []netip.AddrPort
	// NoIncoming lets the connections of clients pass untouched.
	NoIncoming bool
	// Datagrams hands the application's UDP over; nil: it passes untouched.
	Datagrams *Datagrams
	// Outgoing redirects the connections that the application opens; nil: they
	// pass untouched.
	Outgoing *Outgoing

	bound []netip.AddrPort // where the application's datagrams were sent to
}

// Ownership is an answer to the question whose a listener is.
type Ownership uint8

const (
	// Unknown: it can't be told now. The client's SYN is dropped, and comes
	// again after a second.
	Unknown Ownership = iota
	// Ours: the application's; its connections are redirected.
	Ours
	// Theirs: somebody else's in the namespace; its connections are left alone.
	Theirs
)

// maxIntercepted bounds the set of intercepted addresses, per family. A service
// needs one per listening port and local address.
const maxIntercepted = 65535

func (o *Options) defaultsAndValidate() error {
	if !regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`).MatchString(o.Suffix) {
		return fmt.Errorf("%w: suffix %q: want 1 to 64 letters, digits or '_'", ErrOptions, o.Suffix)
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if o.Listener == nil {
		return fmt.Errorf("%w: no listener", ErrOptions)
	}
	if o.Loopback && o.Owns == nil {
		return fmt.Errorf("%w: loopback without a way to tell the application from others", ErrOptions)
	}
	if o.Outgoing != nil && o.Outgoing.Listener == nil {
		return fmt.Errorf("%w: no listener for outgoing connections", ErrOptions)
	}
	for i, p := range o.ExcludePrefixes {
		if !p.IsValid() {
			return fmt.Errorf("%w: exclude prefix %d is not valid", ErrOptions, i)
		}
		o.ExcludePrefixes[i] = p.Masked()
	}
	for _, a := range o.Intercept {
		if !a.IsValid() {
			return fmt.Errorf("%w: intercept %v is not an address and port", ErrOptions, a)
		}
	}
	return nil
}

func tableName(suffix string) string { return "crsc_" + suffix }
