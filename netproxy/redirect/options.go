package redirect

import (
	"fmt"
	"net/netip"
	"regexp"
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
	// ExcludePrefixes are peers whose connections are never redirected.
	// IPv6 link-local is always among them.
	ExcludePrefixes []netip.Prefix
	// Intercept are addresses to redirect from the start, whether or not
	// somebody listens there yet.
	Intercept []netip.AddrPort
	// Outgoing redirects the connections that the application opens; nil: they
	// pass untouched.
	Outgoing *Outgoing
}

// maxIntercepted bounds the set of intercepted addresses, per family. A service
// needs one per listening port and local address.
const maxIntercepted = 65535

func (o *Options) defaultsAndValidate() error {
	if !regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`).MatchString(o.Suffix) {
		return fmt.Errorf("%w: suffix %q: want 1 to 64 letters, digits or '_'", ErrOptions, o.Suffix)
	}
	if o.Listener == nil {
		return fmt.Errorf("%w: no listener", ErrOptions)
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
