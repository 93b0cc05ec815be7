package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// Outgoing says how connections that the application opens are redirected. The
// first SYN of each waits in a netfilter queue for a decision:
//
//   - Repeat with MarkGrant: it is handed to Listener, which answers in the
//     server's place, and so are all later packets of the connection.
//   - Accept with MarkSteer: the same for a SYN that is sent again.
//   - Accept: the connection passes untouched.
//   - Drop: the application's kernel sends it again after a second.
//
// While nobody reads the queue, connections pass untouched.
type Outgoing struct {
	// Listener accepts the connections; its local address is the server's.
	Listener *Listener
	// Queue is the number of the netfilter queue.
	Queue uint16
	// ExcludePorts are servers' ports that are never redirected.
	ExcludePorts []uint16
	// ExcludePrefixes are servers' addresses that are never redirected. IPv6
	// link-local is always among them.
	ExcludePrefixes []netip.Prefix
}

// Flow is a connection that the application opens. The kernel may use one local
// port towards several servers.
type Flow struct {
	Server netip.AddrPort
	Port   uint16 // the application's
}

// Granted notes a flow that was given to the listener, so that it is put back
// should somebody flush the ruleset. It does no I/O.
func (r *Redirect) Granted(f Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flows[f] = struct{}{}
}

// Steer redirects the packets of a flow that was granted by nobody.
func (r *Redirect) Steer(f Flow) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flows[f] = struct{}{}
	for i, s := range r.table.flows {
		if e := flowElements([]Flow{f}, i); len(e) > 0 {
			if err := r.table.conn.SetAddElements(s, e); err != nil {
				return err
			}
		}
	}
	if err := r.table.conn.Flush(); err != nil {
		return fmt.Errorf("steer %v: %w", f, err)
	}
	return nil
}

// ForgetFlows ends the redirection of flows whose sockets are gone.
func (r *Redirect) ForgetFlows(flows []Flow) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range flows {
		delete(r.flows, f)
	}
	if err := r.table.forgetFlows(flows); err != nil {
		return fmt.Errorf("forget %d outgoing connections: %w", len(flows), err)
	}
	return nil
}

// flowSet is the set of the redirected flows of family i.
func (t *table) flowSet(i int) *nftables.Set {
	addr, name := nftables.TypeIPAddr, "flow4"
	if i == 1 {
		addr, name = nftables.TypeIP6Addr, "flow6"
	}
	return &nftables.Set{
		ID: uint32(10 + i), Table: t.nft, Name: name, Dynamic: true, Size: maxIntercepted,
		KeyType: nftables.MustConcatSetType(addr, nftables.TypeInetService, nftables.TypeInetService),
	}
}

func flowElements(flows []Flow, i int) []nftables.SetElement {
	var out []nftables.SetElement
	for _, f := range flows {
		addr := f.Server.Addr().Unmap()
		if addr.Is4() != (i == 0) {
			continue
		}
		// Each part of a concatenated key is padded to four bytes.
		key := binary.BigEndian.AppendUint16(addr.AsSlice(), f.Server.Port())
		key = binary.BigEndian.AppendUint16(append(key, 0, 0), f.Port)
		out = append(out, nftables.SetElement{Key: append(key, 0, 0)})
	}
	return out
}

// addOutgoingSets makes the sets of flows, with those that are known.
func (t *table) addOutgoingSets(o *Outgoing, flows []Flow) error {
	for i := range t.flows {
		if err := t.conn.AddSet(t.flows[i], flowElements(flows, i)); err != nil {
			return err
		}
	}
	var skip []nftables.SetElement
	for _, p := range o.ExcludePorts {
		skip = append(skip, nftables.SetElement{Key: be16(p)})
	}
	return t.conn.AddSet(t.serverPorts, skip)
}

// addOutgoingPrerouting hands granted SYNs, which come back over lo, to the
// listener. Later packets find the accepted socket by themselves.
func (t *table) addOutgoingPrerouting(add func(...[]expr.Any), o *Outgoing) {
	for i, f := range families() {
		if port := o.Listener.port(i); port != 0 {
			add(marked(MarkSteer), f.only(), isTCP(), bareSYN(), f.flowKey(), inSet(t.flows[i], false), f.toListener(port))
		}
	}
}

// addOutgoing steers the packets of redirected flows, and queues the SYN of each
// new one.
func (t *table) addOutgoing(add func(...[]expr.Any), f *family, i int, o *Outgoing) {
	add(f.only(), marked(MarkGrant), bareSYN(), f.flowKey(), addToSet(t.flows[i]), steer(), accept())
	add(f.only(), bareSYN(), f.peerIn(f.daddr, t.servers[i], false), loadPort(tcpDest), inSet(t.serverPorts, true), t.toQueue(o.Queue))
	add(f.only(), f.flowKey(), inSet(t.flows[i], false), steer(), accept())
}

// toQueue hands the packet to a queue, or lets it pass while nobody has it open.
func (t *table) toQueue(number uint16) []expr.Any {
	if !t.xtQueue {
		return []expr.Any{&expr.Queue{Num: number, Total: 1, Flag: expr.QueueFlagBypass}}
	}
	// struct xt_NFQ_info_v3: queuenum, queues_total, flags (NFQ_FLAG_BYPASS).
	var info xt.Unknown
	for _, v := range []uint16{number, 1, 1} {
		info = binary.NativeEndian.AppendUint16(info, v)
	}
	return []expr.Any{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}}
}

// flowKey loads the server's address, its port and the application's.
func (f *family) flowKey() []expr.Any {
	return append(f.key(f.daddr, tcpDest), &expr.Payload{
		DestRegister: f.portKeyReg + 1, Base: expr.PayloadBaseTransportHeader, Offset: tcpSource, Len: 2,
	})
}

func isTCP() []expr.Any { return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{unix.IPPROTO_TCP}) }

// forgetFlows deletes one element at a time, as one that is absent fails its
// batch.
func (t *table) forgetFlows(flows []Flow) error {
	for _, f := range flows {
		for i, s := range t.flows {
			e := flowElements([]Flow{f}, i)
			if len(e) == 0 {
				continue
			}
			if err := t.conn.SetDeleteElements(s, e); err != nil {
				return err
			}
			if err := t.conn.Flush(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
