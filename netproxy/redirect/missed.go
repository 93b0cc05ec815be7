package redirect

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"

	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// addMissed is for connections that come to the application by themselves. Our
// rules look for a listener before TCP does; one that begins to listen between the
// two gets the SYN. It has to answer it, and here its answer ends: the
// application's kernel gets a reset in the client's name and forgets the SYN, which
// the client sends again after a second.
//
// What a listener answers to a leg has the leg's mark and does not come here, unless
// marks are not inherited.
func (t *table) addMissed(add func(...[]expr.Any), o *Options, queue uint16) {
	add(marked(MarkMissed), reset())
	for i, f := range families() {
		if o.Listener.port(i) == 0 {
			continue
		}
		answer := f.only()
		if o.excludes(i) {
			answer = append(answer, f.peerIn(f.daddr, t.clients[i], false)...)
		}
		answer = slices.Concat(answer, loadPort(tcpSource), inSet(t.ports, true), appListens(), f.key(f.saddr, tcpSource))
		if o.Owns == nil {
			add(answer, inSet(t.sets[i], true), reset())
			continue
		}
		add(answer, inSet(t.others[i], true), t.toQueue(queue))
	}
}

// decideMissed is asked about the answer to a client that leaves from at.
func (a *arbiter) decideMissed(at, client netip.AddrPort) (nfqueue.Verdict, uint32) {
	var s sockdiag.Socket
	err := a.diag.Lookup(sockdiag.Tuple{Local: client, Remote: at}, &s)
	inside := err == nil // the client's socket is in this namespace
	if inside && s.Mark&MarkMask == MarkSteer {
		return nfqueue.Accept, MarkSteer // a leg's
	}
	ls, err := a.listeners(at)
	if err == nil && len(ls) == 0 {
		// Nobody to protect: it listens no longer, or both ends have connected to
		// each other.
		return nfqueue.Accept, 0
	}
	switch a.ownership(ls, err) {
	case Theirs:
		if err := a.r.leaveAlone(at); err != nil {
			a.r.opts.Log.WithError(err).WithField("source", at).Warn("redirect: a new listener")
		}
		return nfqueue.Accept, 0
	case Ours:
		if inside && a.r.opts.Owns([]uint32{s.Inode}) == Ours {
			return nfqueue.Accept, 0 // to itself
		}
	default:
		if inside && !a.r.intercepts(at) {
			return nfqueue.Accept, 0 // as in decide
		}
	}
	return nfqueue.Repeat, MarkMissed // Unknown, too: its SYN comes again
}
