package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// table is our nftables table. Its methods queue or send netlink messages on conn.
type table struct {
	conn   *nftables.Conn
	sock   *netlink.Conn // of conn
	nft    *nftables.Table
	sets   [2]*nftables.Set // intercepted addresses, by family
	others [2]*nftables.Set // addresses that turned out to be somebody else's
	ports  *nftables.Set    // excluded local ports
	rules  map[string]int   // how many rules each chain was given

	bound   [2]*nftables.Set // addresses of the application's UDP sockets, by family
	foreign [2]*nftables.Set // and of others'

	flows       [2]*nftables.Set // by family
	serverPorts *nftables.Set    // excluded ports of servers
	clients     [2]*nftables.Set // excluded clients, by family
	servers     [2]*nftables.Set // excluded servers, by family
	xtQueue     bool             // the kernel has queues for iptables' rules only
}

const (
	chainIn   = "prerouting"
	chainOver = "loopback" // of packets that have come over lo
	chainOut  = "output"
	// chainMissed is of answers to SYNs.
	chainMissed = "missed"
)

// othersFor is how long an address is left alone before it is looked at again.
const othersFor = 5 * time.Second

// inPriority is behind destination NAT (-100): where somebody else in the pod
// redirects connections, as a service mesh does, we see them where they go.
const inPriority = -95

func newTable(suffix string) *table {
	t := &table{
		nft:   &nftables.Table{Name: tableName(suffix), Family: nftables.TableFamilyINet},
		rules: make(map[string]int),
	}
	for i, f := range families() {
		t.sets[i] = &nftables.Set{
			// IDs only have to differ within one batch; given here because the
			// library draws its own from an unguarded counter.
			ID: uint32(i + 1), Table: t.nft, Name: f.set, KeyType: f.keyType, Dynamic: true, Size: maxIntercepted,
		}
		t.others[i] = &nftables.Set{
			ID: uint32(i + 3), Table: t.nft, Name: "others_" + f.set, KeyType: f.keyType,
			HasTimeout: true, Timeout: othersFor, Size: maxIntercepted,
		}
	}
	t.flows = [2]*nftables.Set{t.flowSet(0), t.flowSet(1)}
	for i := range t.clients {
		t.clients[i], t.servers[i] = t.prefixSet(13, "skip_client", i), t.prefixSet(15, "skip_server", i)
	}
	t.datagramSets()
	t.serverPorts = &nftables.Set{ID: 12, Table: t.nft, Name: "skip_server_port", KeyType: nftables.TypeInetService}
	t.ports = &nftables.Set{ID: 5, Table: t.nft, Name: "skip_port", KeyType: nftables.TypeInetService}
	return t
}

// replace puts the whole table in place, in place of a table of that name if
// there is one. The chains come in one transaction.
func (t *table) replace(o *Options, queue uint16, intercepted []netip.AddrPort, flows []Flow) error {
	if err := t.create(); err != nil {
		return err
	}
	err := t.fill(o, queue, intercepted, flows)
	if errors.Is(err, unix.ENOENT) && !t.xtQueue {
		t.xtQueue = true
		err = t.fill(o, queue, intercepted, flows)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: nftables: %w", ErrKernel, err)
	}
	if err != nil {
		return fmt.Errorf("install table %s: %w", t.nft.Name, err)
	}
	return nil
}

func (t *table) fill(o *Options, queue uint16, intercepted []netip.AddrPort, flows []Flow) error {
	clear(t.rules)
	for i := range t.sets {
		if err := t.conn.AddSet(t.sets[i], elements(intercepted, i)); err != nil {
			return err
		}
		if err := t.conn.AddSet(t.others[i], nil); err != nil {
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
	if err := t.addPrefixSets(o); err != nil {
		return err
	}
	if o.Outgoing != nil {
		if err := t.addOutgoingSets(o.Outgoing, flows); err != nil {
			return err
		}
	}
	if o.Datagrams != nil {
		if err := t.addDatagrams(o, queue); err != nil {
			return err
		}
	}
	t.addPrerouting(o, queue)
	t.addOutput(o, queue)
	return t.conn.Flush()
}

func (t *table) chain(name string, typ nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) func(...[]expr.Any) {
	policy := nftables.ChainPolicyAccept
	c := t.conn.AddChain(&nftables.Chain{
		Name: name, Table: t.nft, Type: typ, Hooknum: hook,
		Priority: &priority, Policy: &policy,
	})
	return t.rulesOf(c)
}

// branch is a chain that others go to.
func (t *table) branch(name string) func(...[]expr.Any) {
	return t.rulesOf(t.conn.AddChain(&nftables.Chain{Name: name, Table: t.nft}))
}

func (t *table) rulesOf(c *nftables.Chain) func(...[]expr.Any) {
	return func(parts ...[]expr.Any) {
		t.rules[c.Name]++
		t.conn.AddRule(&nftables.Rule{Table: t.nft, Chain: c, Exprs: rule(parts...)})
	}
}

// addPrerouting: the packets of connections that stand come first, since there
// are more of them than of any others.
func (t *table) addPrerouting(o *Options, queue uint16) {
	over := t.branch(chainOver)
	// What belongs to a connection finds its socket by itself.
	over(notSYN(), accept())
	if o.Outgoing != nil {
		t.addOutgoingPrerouting(over, o.Outgoing)
	}
	if o.Loopback {
		t.addLoopback(over, o, queue)
	}
	add := t.chain(chainIn, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, inPriority)
	add(pushed(), accept())
	add(overLoopback(), []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chainOver}})
	add(meta(expr.MetaKeyL4PROTO, expr.CmpOpNeq, []byte{unix.IPPROTO_TCP}), accept())
	for i, f := range families() {
		port := o.Listener.port(i)
		if port == 0 || o.NoIncoming {
			continue
		}
		if o.excludes(i) {
			add(f.only(), f.peerIn(f.saddr, t.clients[i], true), accept())
		}
		add(f.only(), f.key(f.daddr, tcpDest), inSet(t.sets[i], false), f.toListener(port))
		if o.Owns == nil {
			add(f.only(), bareSYN(), loadPort(tcpDest), inSet(t.ports, true), appListens(),
				f.key(f.daddr, tcpDest), addToSet(t.sets[i]), f.toListener(port))
			continue
		}
		add(f.only(), bareSYN(), loadPort(tcpDest), inSet(t.ports, true), appListens(),
			f.key(f.daddr, tcpDest), inSet(t.others[i], true), t.toQueue(queue))
	}
}

// addLoopback redirects SYNs over lo, later packets of which find their sockets
// by themselves. Each is asked about while somebody listens: whether the
// application connects to itself shows only then.
func (t *table) addLoopback(add func(...[]expr.Any), o *Options, queue uint16) {
	for _, mark := range []uint32{MarkOwn, MarkSteer} {
		add(marked(mark), accept())
	}
	for i, f := range families() {
		port := o.Listener.port(i)
		if port == 0 {
			continue
		}
		syn := slices.Concat(f.only(), isTCP(), bareSYN())
		if o.excludes(i) {
			add(syn, f.peerIn(f.saddr, t.clients[i], true), accept())
		}
		add(syn, marked(MarkGrant), f.toListener(port))
		add(syn, loadPort(tcpDest), inSet(t.ports, true), appListens(), t.toQueue(queue))
		add(syn, f.key(f.daddr, tcpDest), inSet(t.sets[i], false), f.toListener(port))
	}
}

func overLoopback() []expr.Any { return meta(expr.MetaKeyIIF, expr.CmpOpEq, host32(loopbackIndex)) }

// addOutput: as addPrerouting.
func (t *table) addOutput(o *Options, queue uint16) {
	add := t.chain(chainOut, nftables.ChainTypeRoute, nftables.ChainHookOutput, *nftables.ChainPriorityMangle)
	// Two packets of three, also those of another redirection.
	add(marked(MarkSteer), accept())
	add(marked(MarkOwn), notSYN(), accept())
	add(meta(expr.MetaKeyL4PROTO, expr.CmpOpNeq, []byte{unix.IPPROTO_TCP}), accept())
	for _, l := range o.listeners() {
		for i, f := range families() {
			if port := l.port(i); port != 0 {
				// Nobody in the pod reaches the listener but by redirection.
				add(f.only(), f.inPrefix(f.daddr, netip.PrefixFrom(f.loopback, f.loopback.BitLen())),
					loadPort(tcpDest), []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: keyReg, Data: be16(port)}},
					reset())
			}
		}
	}
	toLoopback := meta(expr.MetaKeyOIF, expr.CmpOpEq, host32(loopbackIndex))
	if !o.Loopback {
		add(toLoopback, accept())
	}
	add(marked(MarkOwn), accept())
	if !o.NoIncoming {
		t.addMissed(t.branch(chainMissed), o, queue)
		add(answersSYN(), []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chainMissed}})
	}
	if o.Loopback {
		add(toLoopback, accept())
	}
	for i, f := range families() {
		if o.Listener.port(i) == 0 {
			continue
		}
		client := f.only()
		if o.excludes(i) {
			client = append(client, f.peerIn(f.daddr, t.clients[i], false)...)
		}
		reply := slices.Concat(f.key(f.saddr, tcpSource), inSet(t.sets[i], false), steer(), accept())
		if o.Outgoing != nil {
			add(client, notSYN(), reply)
			t.addOutgoing(add, &f, i, o.Outgoing)
		}
		add(client, reply)
	}
}

// excludes reports whether some clients of family i are left alone.
func (o *Options) excludes(i int) bool {
	return i == 1 || slices.ContainsFunc(o.ExcludePrefixes, func(p netip.Prefix) bool { return p.Addr().Is4() })
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
