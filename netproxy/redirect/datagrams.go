package redirect

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Datagrams says how UDP is handed over. A datagram for a socket of the
// application waits in one netfilter queue until its reader accepts it, what the
// application sends from such an address in another. Those that came over lo or
// were sent to a group pass, like all others. While nobody reads the queues,
// everything passes.
type Datagrams struct {
	// In and Out are the numbers of the queues.
	In, Out uint16
	// EphemeralLow and EphemeralHigh bound the ports that the kernel gives to
	// sockets which ask for none: those of clients. They pass.
	EphemeralLow, EphemeralHigh uint16
}

const (
	chainDatagramsIn  = "datagrams_in"
	chainDatagramsOut = "datagrams_out"
	chainUntracked    = "datagrams_again"

	// datagramPriority is behind all filters: what they drop is never seen.
	datagramPriority = 200
	// untrackedPriority is before connection tracking.
	untrackedPriority = -300
)

// datagramSets are the addresses of the application's sockets and of others'.
func (t *table) datagramSets() {
	for i, f := range families() {
		t.bound[i] = &nftables.Set{
			ID: uint32(20 + i), Table: t.nft, Name: "bound" + f.set[len("listen"):], KeyType: f.keyType, Dynamic: true, Size: maxIntercepted,
		}
		t.foreign[i] = &nftables.Set{
			ID: uint32(22 + i), Table: t.nft, Name: "others_" + t.bound[i].Name, KeyType: f.keyType,
			HasTimeout: true, Timeout: othersFor, Size: maxIntercepted,
		}
	}
}

func (t *table) addDatagrams(o *Options, arbiter uint16) error {
	for i := range t.bound {
		if err := t.conn.AddSet(t.bound[i], elements(o.bound, i)); err != nil {
			return err
		}
		if err := t.conn.AddSet(t.foreign[i], nil); err != nil {
			return err
		}
	}
	t.addDatagramsIn(o, arbiter)
	t.addDatagramsOut(o)
	add := t.chain(chainUntracked, nftables.ChainTypeFilter, nftables.ChainHookOutput, untrackedPriority)
	// What is given to the application again must not meet the entry of the
	// connection that it came by.
	add(isUDP(), marked(MarkOwn), []expr.Any{&expr.Notrack{}})
	return nil
}

func (t *table) addDatagramsIn(o *Options, arbiter uint16) {
	add := t.chain(chainDatagramsIn, nftables.ChainTypeFilter, nftables.ChainHookInput, datagramPriority)
	d := o.Datagrams
	add(overLoopback(), accept())
	add(meta(expr.MetaKeyL4PROTO, expr.CmpOpNeq, []byte{unix.IPPROTO_UDP}), accept())
	add(meta(expr.MetaKeyPKTTYPE, expr.CmpOpNeq, []byte{unix.PACKET_HOST}), accept())
	add(loadPort(tcpDest), []expr.Any{
		&expr.Cmp{Op: expr.CmpOpGte, Register: keyReg, Data: be16(d.EphemeralLow)},
		&expr.Cmp{Op: expr.CmpOpLte, Register: keyReg, Data: be16(d.EphemeralHigh)},
	}, accept())
	for i, f := range families() {
		add(f.only(), f.peerIn(f.saddr, t.clients[i], true), accept())
		add(f.only(), f.key(f.daddr, tcpDest), inSet(t.bound[i], false), t.toQueue(d.In))
		fresh := slices.Concat(f.only(), loadPort(tcpDest), inSet(t.ports, true), appListens(), f.key(f.daddr, tcpDest))
		if o.Owns == nil {
			add(fresh, addToSet(t.bound[i]), t.toQueue(d.In))
			continue
		}
		add(fresh, inSet(t.foreign[i], true), t.toQueue(arbiter))
	}
}

func (t *table) addDatagramsOut(o *Options) {
	add := t.chain(chainDatagramsOut, nftables.ChainTypeFilter, nftables.ChainHookOutput, datagramPriority)
	add(meta(expr.MetaKeyOIF, expr.CmpOpEq, host32(loopbackIndex)), accept())
	for i, f := range families() {
		add(f.only(), isUDP(), f.key(f.saddr, tcpSource), inSet(t.bound[i], false), t.toQueue(o.Datagrams.Out))
		// A datagram that met the dead application is given to the restored one:
		// its sender must not be told that nobody was there.
		add(f.portUnreachable(), inSet(t.bound[i], false), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
	}
}

func isUDP() []expr.Any { return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{unix.IPPROTO_UDP}) }

// portUnreachable matches the ICMP error of that name about a datagram, and
// loads where that had been sent to.
func (f *family) portUnreachable() []expr.Any {
	proto, kind, header := byte(unix.IPPROTO_ICMP), []byte{3, 3}, uint32(20)
	next := uint32(9) // of the protocol in the IP header
	if f.proto == unix.NFPROTO_IPV6 {
		proto, kind, header, next = unix.IPPROTO_ICMPV6, []byte{1, 4}, 40, 6
	}
	const icmpHeader = 8
	at := func(reg, offset, length uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}
	}
	return slices.Concat(f.only(), meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{proto}), []expr.Any{
		at(scratchReg, 0, 2),
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratchReg, Data: kind},
		at(scratchReg, icmpHeader+next, 1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratchReg, Data: []byte{unix.IPPROTO_UDP}},
		at(keyReg, icmpHeader+f.daddr, f.addrLen),
		at(f.portKeyReg, icmpHeader+header+2, 2),
	})
}

// bind hands the datagrams to an address over from now on.
func (r *Redirect) bind(addr netip.AddrPort) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.opts.bound, addr) {
		r.opts.bound = append(r.opts.bound, addr)
	}
	if err := r.table.add(r.table.bound, []netip.AddrPort{addr}); err != nil {
		return fmt.Errorf("take the datagrams to %v: %w", addr, err)
	}
	return nil
}

// leaveDatagrams lets those to an address pass for a while.
func (r *Redirect) leaveDatagrams(addr netip.AddrPort) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.table.add(r.table.foreign, []netip.AddrPort{addr}); err != nil {
		return fmt.Errorf("leave the datagrams to %v alone: %w", addr, err)
	}
	return nil
}

// Unbind lets the datagrams to an address pass, until a socket is found there
// with the next one.
func (r *Redirect) Unbind(addr netip.AddrPort) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts.bound = slices.DeleteFunc(r.opts.bound, func(a netip.AddrPort) bool { return a == addr })
	if err := r.table.forget(r.table.bound, []netip.AddrPort{addr}); err != nil {
		return fmt.Errorf("let the datagrams to %v pass: %w", addr, err)
	}
	return nil
}
