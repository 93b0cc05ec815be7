package netproxy

import (
	"fmt"
	"runtime/debug"
)

// contain is deferred around the loop: a defect of ours ends the proxy and not
// the shim, which would take the container with it. Clients are reset, because
// nobody knows any more what they have; new connections reach the application
// without us.
func (p *Proxy) contain() {
	v := recover()
	if v == nil {
		return
	}
	err := fmt.Errorf("internal error of the proxy: %v", v)
	p.opts.Log.WithField("stack", string(debug.Stack())).Errorf("netproxy: %v", err)
	for _, step := range []func(){p.resetAll, p.release, func() { p.opts.OnCollapse(err) }} {
		p.evenThen(step)
	}
}

// evenThen does a part of the clearing up after a panic, whatever state that
// left.
func (p *Proxy) evenThen(step func()) {
	defer func() {
		if v := recover(); v != nil {
			p.opts.Log.WithField("stack", string(debug.Stack())).Errorf("netproxy: clearing up after an internal error: %v", v)
		}
	}()
	step()
}

func (p *Proxy) resetAll() {
	for _, c := range p.slots {
		if c != nil {
			p.closeSockets(c, true)
		}
	}
}
