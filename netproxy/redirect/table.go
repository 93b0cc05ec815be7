package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// table is our nftables table. Its methods queue or send netlink messages on conn.
type table struct {
	conn  *nftables.Conn
	nft   *nftables.Table
	sets  [2]*nftables.Set // by family
	ports *nftables.Set    // excluded local ports
	rules map[string]int   // how many rules each chain was given

	flows       [2]*nftables.Set // by family
	serverPorts *nftables.Set    // excluded ports of servers
	xtQueue     bool             // the kernel has queues for iptables' rules only
}

const (
	chainIn  = "prerouting"
	chainOut = "output"
)

func newTable(conn *nftables.Conn, suffix string) *table {
	t := &table{
		conn:  conn,
		nft:   &nftables.Table{Name: tableName(suffix), Family: nftables.TableFamilyINet},
		rules: make(map[string]int),
	}
	for i, f := range families() {
		t.sets[i] = &nftables.Set{
			// IDs only have to differ within one batch; given here because the
			// library draws its own from an unguarded counter.
			ID: uint32(i + 1), Table: t.nft, Name: f.set, KeyType: f.keyType, Dynamic: true, Size: maxIntercepted,
		}
	}
	t.flows = [2]*nftables.Set{t.flowSet(0), t.flowSet(1)}
	t.serverPorts = &nftables.Set{ID: 12, Table: t.nft, Name: "skip_server_port", KeyType: nftables.TypeInetService}
	t.ports = &nftables.Set{ID: 3, Table: t.nft, Name: "skip_port", KeyType: nftables.TypeInetService}
	return t
}

// replace puts the whole table in place in one transaction, in place of a table
// of that name if there is one.
func (t *table) replace(o *Options, intercepted []netip.AddrPort, flows []Flow) error {
	err := t.replaceOnce(o, intercepted, flows)
	if o.Outgoing != nil && errors.Is(err, ErrKernel) && !t.xtQueue {
		t.xtQueue = true
		err = t.replaceOnce(o, intercepted, flows)
	}
	return err
}

func (t *table) replaceOnce(o *Options, intercepted []netip.AddrPort, flows []Flow) error {
	t.conn.AddTable(t.nft)
	t.conn.DelTable(t.nft) // valid now, whether or not the table existed
	t.conn.AddTable(t.nft)
	clear(t.rules)
	for i := range t.sets {
		if err := t.conn.AddSet(t.sets[i], elements(intercepted, i)); err != nil {
			return err
		}
	}
	var skip []nftables.SetElement
	for _, p := range o.ExcludePorts {
		skip = append(skip, nftables.SetElement{Key: be16(p)})
	}
	if err := t.conn.AddSet(t.ports, skip); err != nil {
		return err
	}
	if o.Outgoing != nil {
		if err := t.addOutgoingSets(o.Outgoing, flows); err != nil {
			return err
		}
	}
	t.addPrerouting(o)
	t.addOutput(o)
	if err := t.conn.Flush(); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: nftables: %w", ErrKernel, err)
		}
		return fmt.Errorf("install table %s: %w", t.nft.Name, err)
	}
	return nil
}

func (t *table) chain(name string, typ nftables.ChainType, hook *nftables.ChainHook) func(...[]expr.Any) {
	policy := nftables.ChainPolicyAccept
	c := t.conn.AddChain(&nftables.Chain{
		Name: name, Table: t.nft, Type: typ, Hooknum: hook,
		Priority: nftables.ChainPriorityMangle, Policy: &policy,
	})
	return func(parts ...[]expr.Any) {
		t.rules[name]++
		t.conn.AddRule(&nftables.Rule{Table: t.nft, Chain: c, Exprs: rule(parts...)})
	}
}

func (t *table) addPrerouting(o *Options) {
	add := t.chain(chainIn, nftables.ChainTypeFilter, nftables.ChainHookPrerouting)
	if o.Outgoing != nil {
		t.addOutgoingPrerouting(add, o.Outgoing)
	}
	add(meta(expr.MetaKeyIIF, expr.CmpOpEq, host32(loopbackIndex)), accept())
	add(meta(expr.MetaKeyL4PROTO, expr.CmpOpNeq, []byte{unix.IPPROTO_TCP}), accept())
	for i, f := range families() {
		port := o.Listener.port(i)
		if port == 0 {
			continue
		}
		for _, p := range o.excluded(&f) {
			add(f.only(), f.inPrefix(f.saddr, p), accept())
		}
		add(f.only(), f.key(f.daddr, tcpDest), inSet(t.sets[i], false), f.toListener(port))
		add(f.only(), bareSYN(), loadPort(tcpDest), inSet(t.ports, true), appListens(),
			f.key(f.daddr, tcpDest), addToSet(t.sets[i]), f.toListener(port))
	}
}

func (t *table) addOutput(o *Options) {
	add := t.chain(chainOut, nftables.ChainTypeRoute, nftables.ChainHookOutput)
	add(meta(expr.MetaKeyL4PROTO, expr.CmpOpNeq, []byte{unix.IPPROTO_TCP}), accept())
	for _, l := range o.listeners() {
		for i, f := range families() {
			if port := l.port(i); port != 0 {
				// Nobody in the pod reaches the listener but by redirection.
				add(f.only(), f.inPrefix(f.daddr, netip.PrefixFrom(f.loopback, f.loopback.BitLen())),
					loadPort(tcpDest), []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: keyReg, Data: be16(port)}},
					[]expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
			}
		}
	}
	add(meta(expr.MetaKeyOIF, expr.CmpOpEq, host32(loopbackIndex)), accept())
	add(marked(MarkOwn), accept())
	for i, f := range families() {
		if o.Listener.port(i) == 0 {
			continue
		}
		for _, p := range o.excluded(&f) {
			add(f.only(), f.inPrefix(f.daddr, p), accept())
		}
		if o.Outgoing != nil {
			t.addOutgoing(add, &f, i, o.Outgoing)
		}
		add(f.only(), f.key(f.saddr, tcpSource), inSet(t.sets[i], false), steer())
	}
}

func (o *Options) listeners() []*Listener {
	if o.Outgoing == nil {
		return []*Listener{o.Listener}
	}
	return []*Listener{o.Listener, o.Outgoing.Listener}
}

func loadPort(offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: keyReg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
	}
}

// excluded returns the prefixes of f's family whose peers are left alone.
func (o *Options) excluded(f *family) []netip.Prefix {
	var out []netip.Prefix
	if f.proto == unix.NFPROTO_IPV6 {
		out = append(out, netip.MustParsePrefix("fe80::/10"))
	}
	for _, p := range o.ExcludePrefixes {
		if p.Addr().Is4() == (f.proto == unix.NFPROTO_IPV4) {
			out = append(out, p)
		}
	}
	return out
}

// complete tells whether the table stands as replace made it.
func (t *table) complete() (bool, error) {
	for name, want := range t.rules {
		rules, err := t.conn.GetRules(t.nft, &nftables.Chain{Name: name, Table: t.nft})
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read table %s: %w", t.nft.Name, err)
		}
		if len(rules) != want {
			return false, nil
		}
	}
	return true, nil
}

// remove deletes the table with both chains at once; no table is no error.
func (t *table) remove() error {
	t.conn.AddTable(t.nft)
	t.conn.DelTable(t.nft)
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("remove table %s: %w", t.nft.Name, err)
	}
	return nil
}
