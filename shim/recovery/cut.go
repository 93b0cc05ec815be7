package recovery

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

// match finds the application's socket of each connection of the table.
func match(t *replay.Table, sockets []criu.TCPSocket) map[uint32]criu.TCPSocket {
	type tuple struct{ local, remote netip.AddrPort }
	byTuple := make(map[tuple]criu.TCPSocket, len(sockets))
	for _, s := range sockets {
		byTuple[tuple{plain(s.Local), plain(s.Remote)}] = s
	}
	out := make(map[uint32]criu.TCPSocket, len(t.Conns))
	for _, c := range t.Conns {
		if c.Opening {
			continue // its socket has nothing but a SYN
		}
		if s, ok := byTuple[tuple{c.Local(), c.Peer()}]; ok {
			out[c.ID] = s
		}
	}
	return out
}

// foreign lists the connections of the images that neither go through the proxy
// nor have their other end in the images. Their peers have seen the crash.
func foreign(t *replay.Table, sockets []criu.TCPSocket) []sockdiag.Tuple {
	known := make(map[sockdiag.Tuple]bool, len(t.Conns)+len(sockets))
	for _, c := range t.Conns {
		known[sockdiag.Tuple{Local: c.Local(), Remote: c.Peer()}] = true
	}
	for _, s := range sockets {
		known[sockdiag.Tuple{Local: plain(s.Remote), Remote: plain(s.Local)}] = true
	}
	var out []sockdiag.Tuple
	for _, s := range sockets {
		at := sockdiag.Tuple{Local: plain(s.Local), Remote: plain(s.Remote)}
		if s.Connected() && !known[at] {
			out = append(out, at)
		}
	}
	return out
}

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// positions converts the sequence numbers of the images to stream offsets.
func (c *Cut) positions() (map[uint32]replay.Socket, map[uint32]tcprepair.Peer, error) {
	offsets := make(map[uint32]replay.Socket, len(c.Sockets))
	peers := make(map[uint32]tcprepair.Peer, len(c.Sockets))
	for i := range c.Table.Conns {
		cs := &c.Table.Conns[i]
		s, ok := c.Sockets[cs.ID]
		if !ok {
			continue
		}
		peer := tcprepair.Peer(s)
		m, err := tcprepair.MirrorOf(&peer)
		if err != nil {
			return nil, nil, fmt.Errorf("connection %d: %w", cs.ID, err)
		}
		received := near(cs.InSent, cs.InBase, m.Snd)
		acked := near(cs.OutRead, cs.OutBase, m.Rcv)
		acked += skipQueued(&peer, cs.OutRead-min(acked, cs.OutRead))
		offsets[cs.ID] = replay.Socket{
			Received: received,
			Consumed: received - min(received, uint64(s.InqLen)),
			Acked:    acked,
		}
		peers[cs.ID] = peer
	}
	return offsets, peers, nil
}

// skipQueued makes the leg begin behind up to n bytes of output that the image
// holds as sent and not acknowledged, and that we have read since: our kernel
// delays acknowledgements. The restored kernel would send them again only when
// its retransmission timer expires (200 ms to 1 s); the leg's first segment
// acknowledges them instead. It returns how many bytes are skipped.
func skipQueued(p *tcprepair.Peer, n uint64) uint64 {
	skip := uint32(min(n, uint64(p.OutqLen-p.UnsqLen)))
	p.OutqLen -= skip
	return uint64(skip)
}

// near returns the stream offset of sequence number seq that is nearest to
// ref; base is the sequence number of offset 0.
func near(ref uint64, base, seq uint32) uint64 {
	delta := int64(int32(seq - (base + uint32(ref))))
	if delta < 0 && uint64(-delta) > ref {
		return 0
	}
	return uint64(int64(ref) + delta)
}

// startUnderReaper runs CRIU as a child that containerd's reaper waits for.
func startUnderReaper(cmd *exec.Cmd) (func() (int, error), error) {
	child, err := lifecycle.StartCommand(cmd)
	if err != nil {
		return nil, err
	}
	return func() (int, error) { return child.Wait(context.Background()) }, nil
}
