package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
	"github.com/crsc-io/crsc/oci"
)

// loadCut reads where the connections stood.
func (c *checkpoint) loadCut() error {
	b, err := os.ReadFile(c.cutFile())
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &c.cut); err != nil {
		return fmt.Errorf("%w: %s: %w", criu.ErrCorrupt, c.cutFile(), err)
	}
	if c.cut.Version != cutVersion || c.cut.Table == nil {
		return fmt.Errorf("%w: connections of version %d, and %d is known", oci.ErrIncompatible, c.cut.Version, cutVersion)
	}
	return nil
}

// podAddresses lists those at which others reach the container of a spec.
func podAddresses(spec *specs.Spec) ([]netip.Addr, error) {
	if spec.Linux == nil {
		return nil, nil
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type != specs.NetworkNamespace || ns.Path == "" {
			continue
		}
		f, err := os.Open(ns.Path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return redirect.Addresses(int(f.Fd()))
	}
	return nil, nil
}

// keepAddresses lets the container have the addresses of the pod before that the
// sockets of the images have, and says which it does without.
func (g *guard) keepAddresses() error {
	b := g.begin
	f := redirect.Former{Current: g.self.Addresses}
	former := func(a netip.AddrPort) (netip.Addr, bool, error) {
		addr := a.Addr().Unmap()
		if addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || slices.Contains(g.self.Addresses, addr) {
			return addr, false, nil
		}
		if !slices.Contains(b.addresses, addr) {
			return addr, false, fmt.Errorf("%w: a socket has the address %s, which was not the pod's", oci.ErrIncompatible, a)
		}
		if !slices.Contains(f.Addrs, addr) {
			f.Addrs = append(f.Addrs, addr)
		}
		return addr, true, nil
	}
	for _, a := range b.contents.Bound {
		addr, is, err := former(a)
		if err != nil {
			return err
		}
		if at := netip.AddrPortFrom(addr, a.Port()); is && !slices.Contains(f.Bound, at) {
			f.Bound = append(f.Bound, at)
		}
	}
	for _, s := range b.contents.Connected {
		if _, _, err := former(s); err != nil {
			return err
		}
	}
	if len(f.Addrs) == 0 {
		return nil
	}
	kept, err := redirect.Keep(int(g.netns.Fd()), tableName(g.c.Namespace(), g.c.ID()), f)
	if err != nil {
		return err
	}
	g.kept = kept
	g.self.Addresses = append(slices.Clone(g.self.Addresses), f.Addrs...)
	g.log.WithField("addresses", f.Addrs).Info("addresses of the pod before live on")
	return nil
}

// adopt makes the other ends of the connections of the images, whose clients
// and servers are gone, so that the restored sockets find somebody.
func (g *guard) adopt(ctx context.Context, cp *checkpoint) error {
	plan, peers, err := farewells(cp, g.journal.Start(), g.cfg.Intercept.Ingress(), g.cfg.Intercept.Egress())
	if err == nil {
		err = g.proxy.Crash(ctx)
	}
	if err == nil {
		err = g.proxy.Rebuild(ctx, plan, peers)
	}
	return err
}

// farewells is a plan that ends each connection in order: what had arrived is
// taken, then comes the end.
func farewells(cp *checkpoint, begin journal.Position, in, out bool) (*replay.Plan, map[uint32]tcprepair.Peer, error) {
	table := *cp.cut.Table
	table.Conns = nil
	for _, cs := range cp.cut.Table.Conns {
		s, ok := cp.cut.Sockets[cs.ID]
		if !ok {
			continue
		}
		if cs.Direction == journal.Out && !out || cs.Direction == journal.In && !in {
			// The node's configuration has changed.
			cp.cut.Foreign = append(cp.cut.Foreign, sockdiag.Tuple{Local: plain(s.Local), Remote: plain(s.Remote)})
			continue
		}
		cs.Opened = begin // its record is in a journal that is gone
		table.Conns = append(table.Conns, cs)
	}
	cp.cut.Table = &table
	offsets, peers, err := cp.cut.positions()
	if err != nil {
		return nil, nil, err
	}
	return replay.Farewell(&table, offsets), peers, nil
}

// release ends the connections of the images, once the container runs, and lets
// new ones come.
func (g *guard) release(ctx context.Context, cp *checkpoint) error {
	if _, err := g.resetForeign(cp); err != nil {
		return err
	}
	_, err := g.proxy.Replay(ctx, true)
	return err
}

// killRestored kills an init that nobody else knows of.
func killRestored(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// without replaces words, wherever they stand in a list.
func without(words, list []string) []string {
	out := slices.Clone(list)
	for _, w := range words {
		for i := range out {
			out[i] = replaceWord(out[i], w, "{of the pod}")
		}
	}
	return out
}

// replaceWord replaces a word where no letter, digit, dot or hyphen is beside it.
func replaceWord(s, word, by string) string {
	var out strings.Builder
	for {
		i := strings.Index(s, word)
		if i < 0 {
			out.WriteString(s)
			return out.String()
		}
		end := i + len(word)
		inside := i > 0 && partOfWord(s[i-1]) || end < len(s) && partOfWord(s[end])
		out.WriteString(s[:i])
		if inside {
			out.WriteString(word)
		} else {
			out.WriteString(by)
		}
		s = s[end:]
	}
}

func partOfWord(c byte) bool {
	return c == '.' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
