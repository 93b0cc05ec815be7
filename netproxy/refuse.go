package netproxy

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// refusal is the answer to a SYN whose server can't be reached.
type refusal struct {
	seq   uint32
	errno unix.Errno
	at    time.Time
}

const (
	// refusalKept is how long copies of a refused SYN may still be under way.
	refusalKept = 2 * time.Second
	// patience is the age from which a SYN's socket is looked for: most are
	// answered long before.
	patience = 50 * time.Millisecond
	// givenUpBatch bounds the sockets that are looked for at a time.
	givenUpBatch = 64
)

// refuse tells the application that a connection has failed.
func (p *Proxy) refuse(s *syn, errno unix.Errno) {
	p.verdict(s.id, nfqueue.Drop, 0)
	if !tcprepair.Tellable(s.client.Addr(), errno) {
		return // its own kernel comes to the same end
	}
	err := tcprepair.Refuse(p.netns, redirect.MarkOwn, errno, tcprepair.SYN{Opener: s.client, Server: s.server, Seq: s.seq, Packet: s.packet})
	if err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: the application is not told that a connection has failed")
	}
	p.egress.refused[s.pair] = refusal{seq: s.seq, errno: errno, at: time.Now()}
}

// forgetRefusals forgets those of which no copy can come any more.
func (p *Proxy) forgetRefusals(now time.Time) {
	for at, r := range p.egress.refused {
		if now.Sub(r.at) > refusalKept {
			delete(p.egress.refused, at)
		}
	}
}

// givenUp reports whether the application does not wait for the connection any
// more: its server must not hear of it.
func (p *Proxy) givenUp(at pair) bool {
	var s sockdiag.Socket
	err := p.egress.diag.Lookup(sockdiag.Tuple{Local: at.client, Remote: at.server}, &s)
	if err != nil {
		return errors.Is(err, sockdiag.ErrNotFound)
	}
	return s.State != sockdiag.SynSent
}

// dropGivenUp drops SYNs that have waited for a decision for longer than the
// application has.
func (p *Proxy) dropGivenUp() {
	p.egress.syns = slices.DeleteFunc(p.egress.syns, func(s *syn) bool {
		if time.Since(s.at) < patience || !p.givenUp(s.pair) {
			return false
		}
		p.verdict(s.id, nfqueue.Drop, 0)
		return true
	})
}

// abandonGivenUp ends connections to servers that have not answered for longer
// than the application has waited: the kernel would go on trying for minutes.
func (p *Proxy) abandonGivenUp(now time.Time) {
	left := givenUpBatch
	for at, c := range p.egress.opening {
		if c.syn == nil || c.granted || now.Sub(c.syn.at) < patience {
			continue
		}
		if left--; left < 0 {
			return // the order of a map is another every time
		}
		if p.phase == live && p.givenUp(at) {
			p.abandon(c)
		}
	}
}
