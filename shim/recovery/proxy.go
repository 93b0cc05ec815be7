package recovery

import (
	"sync/atomic"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/netproxy"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// tenant is the guard that a proxy's questions and notices go to: a proxy may
// outlive a container, and between two of them there is none.
type tenant struct{ atomic.Pointer[guard] }

func (t *tenant) tell(notice func(*guard)) {
	if g := t.Load(); g != nil {
		notice(g)
	}
}

func (t *tenant) dying() netproxy.Dying {
	if g := t.Load(); g != nil {
		return g.procs.dying()
	}
	return netproxy.InitDying
}

func (t *tenant) idle() bool {
	g := t.Load()
	return g != nil && g.procs.idle()
}

func (t *tenant) owns(inodes []uint32) redirect.Ownership {
	if g := t.Load(); g != nil {
		return g.procs.owns(inodes)
	}
	return redirect.Unknown
}

// openProxy puts the proxy into the container's network namespace.
func (g *guard) openProxy() (err error) {
	t := &tenant{}
	t.Store(g)
	g.tenant = t
	g.proxy, err = netproxy.New(netproxy.Options{
		NetNS: int(g.netns.Fd()), Name: tableName(g.c.Namespace(), g.c.ID()),
		Journal: g.journal, Order: orderKind(g.cfg.Order), Dying: t.dying, Idle: t.idle,
		Owns: t.owns, Node: nodeConns(g.cfg.Probes), Loopback: g.cfg.InterceptLoopback,
		Datagrams: g.cfg.JournalUDP, OnUnrecorded: func(what string) { t.tell(func(g *guard) { g.unrecorded(what) }) },
		MaxMemory: int(g.cfg.ProxyMemory), MaxConnections: g.cfg.MaxConnections,
		NoIngress: !g.cfg.Intercept.Ingress(), Egress: g.cfg.Intercept.Egress(),
		ExcludePorts: excluded(g.cfg.ExcludeIn.Ports), ExcludeSources: g.cfg.ExcludeIn.Prefixes,
		ExcludeServerPorts: excluded(g.cfg.ExcludeOut.Ports), ExcludeServers: g.cfg.ExcludeOut.Prefixes,
		OnFault:        func(err error) { t.tell(func(g *guard) { g.journalFailed(err) }) },
		OnCollapse:     func(err error) { t.tell(func(g *guard) { g.collapsed(err) }) },
		HoldOnFault:    g.cfg.JournalFault == config.FaultHold,
		OnStall:        func(err error) { t.tell(func(g *guard) { g.journalStalled(err) }) },
		OnNearlyFull:   func() { t.tell(func(g *guard) { g.wantCheckpoint("journal nearly full") }) },
		OnOrderLost:    func() { t.tell(func(g *guard) { g.wantCheckpoint(orderLost) }) },
		TriggerRecords: uint64(g.cfg.JournalRecords), TriggerBytes: uint64(g.cfg.JournalSize),
		OnTrigger: func() { t.tell(func(g *guard) { g.sched.poke() }) },
		Log:       g.log,
	})
	return err
}
