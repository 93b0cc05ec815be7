package netproxy

import (
	"errors"
	"time"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// orphanInterval is how often half-closed connections are looked at.
const orphanInterval = 10 * time.Second

// checkOrphans ends connections which the application has closed for good while
// their client says nothing more. Its kernel keeps such a socket without an
// owner for net.ipv4.tcp_fin_timeout, 60 s, and forgets it then without a word;
// on a leg that looks like a half-close which may last for ever.
func (p *Proxy) checkOrphans() {
	if p.phase != live || time.Since(p.orphansAt) < p.opts.orphanInterval {
		return
	}
	p.orphansAt = time.Now()
	if err := p.inside.enter(); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: look for forgotten sockets")
		return
	}
	defer p.inside.leave()
	var diag *sockdiag.Conn
	for _, c := range p.slots {
		if c == nil || c.dir != journal.In || c.legFD < 0 || !c.shut[clientSide] || c.closing[clientSide] {
			continue
		}
		if diag == nil {
			var err error
			if diag, err = sockdiag.Open(netns.Current); err != nil {
				p.opts.Log.WithError(err).Warn("netproxy: look for forgotten sockets")
				return
			}
			defer diag.Close()
		}
		var s sockdiag.Socket
		if err := diag.Lookup(sockdiag.Tuple{Local: c.local(), Remote: c.peer()}, &s); errors.Is(err, sockdiag.ErrNotFound) {
			// The client's kernel was told of the end when it came; from here on
			// ours treats it as the application's would have.
			p.appendClose(c, journal.In, true, c.inRead)
			p.destroy(c, false)
		}
	}
}
