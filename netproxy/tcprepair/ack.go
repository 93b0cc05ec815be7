package tcprepair

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Nudge tells a restored application, on behalf of its leg, how far its output
// has arrived and how much room there is. Without it, an application that had
// unacknowledged or unsent output at the cut goes on only when its fresh
// retransmission timer fires, after a second. It comes after Activate, with the
// options of Restore; a Peer without such output needs none and gets none.
func Nudge(ns int, p *Peer, o Options) error {
	m, err := o.mirror(p)
	if err != nil {
		return fmt.Errorf("nudge %v-%v: %w", p.Remote, p.Local, err)
	}
	if p.OutqLen == 0 || !p.HasWindow {
		return nil
	}
	seq := m.Snd
	if m.InputEnded {
		seq++ // past the FIN
	}
	err = sendRaw(ns, o.Mark, segment{
		from: p.Remote, to: p.Local, seq: seq, ack: m.Rcv, flags: tcpACK,
		window: window(m.RcvWnd, p.SndWscale),
	})
	if err != nil {
		return fmt.Errorf("nudge %v-%v: %w", p.Remote, p.Local, err)
	}
	return nil
}

// AckNow sends the acknowledgement that the leg's kernel may be delaying (up to
// 40 ms). Done on every leg just before a checkpoint it leaves less output
// unacknowledged in the image. It does nothing if no acknowledgement is due, or
// while the leg has unread output.
func AckNow(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_QUICKACK, 1); err != nil {
		return fmt.Errorf("acknowledge now: %w", err)
	}
	return nil
}
