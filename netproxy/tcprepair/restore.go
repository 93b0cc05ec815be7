package tcprepair

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Options of Restore.
type Options struct {
	// Mark is the leg's SO_MARK.
	Mark uint32
	// Priority is its SO_PRIORITY.
	Priority int
	// SteerMark is the mark that routes a packet to lo. It is needed to tell a
	// leg that the application's output has ended.
	SteerMark uint32
	// SentArrived: the earlier leg has read everything up to Mirror.Sent. The new
	// leg then takes up there, and output that was sent but unacknowledged at the
	// cut (a reply whose delayed acknowledgement was pending, say) does not come
	// again. Without it, it comes when the restored socket's first
	// retransmission timer fires, after a second.
	SentArrived bool
}

// mirror is MirrorOf as o modifies it.
func (o *Options) mirror(p *Peer) (Mirror, error) {
	m, err := MirrorOf(p)
	if err == nil && o.SentArrived {
		m.Rcv = m.Sent
	}
	return m, err
}

// Restore makes the leg whose other end is p, in network namespace ns
// (netns.Current: the calling thread's), without a packet to the application,
// which need not exist yet. The leg must not be written to before the
// application is restored; then comes Activate. ErrState and ErrPeer as
// MirrorOf; EADDRINUSE if the old leg still stands. The caller closes fd.
func Restore(ns int, p *Peer, o Options) (fd int, err error) {
	m, err := o.mirror(p)
	if err != nil {
		return -1, fmt.Errorf("restore leg %v-%v: %w", p.Remote, p.Local, err)
	}
	fd, err = open(ns, Spec{Client: p.Remote, App: p.Local, Mark: o.Mark, Priority: o.Priority}, true)
	if err != nil {
		return -1, fmt.Errorf("restore leg %v-%v: %w", p.Remote, p.Local, err)
	}
	if err = repair(fd, p, &m); err == nil && m.OutputEnded {
		err = injectFIN(ns, fd, p, &m, o.SteerMark)
	}
	if err == nil {
		err = leaveRepair(fd)
	}
	if err != nil {
		unix.Close(fd) // in repair mode: silently
		return -1, fmt.Errorf("restore leg %v-%v: %w", p.Remote, p.Local, err)
	}
	return fd, nil
}

// repair builds the connection. Each step fails, or hangs the connection
// later, in any other order.
func repair(fd int, p *Peer, m *Mirror) error {
	if err := setInt(fd, unix.TCP_REPAIR, repairOn); err != nil {
		return err
	}
	// Sequence numbers: EPERM after connect.
	if err := setSeq(fd, queueSend, m.Snd); err != nil {
		return err
	}
	if err := setSeq(fd, queueRecv, m.Rcv); err != nil {
		return err
	}
	if err := setInt(fd, unix.TCP_REPAIR_QUEUE, queueNone); err != nil {
		return err
	}
	if err := unix.Bind(fd, sockaddr(p.Remote)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Connect(fd, sockaddr(p.Local)); err != nil { // no packet in repair mode
		return fmt.Errorf("connect: %w", err)
	}
	// Options: EPERM before connect.
	if err := setWords(fd, unix.TCP_REPAIR_OPTIONS, repairOptions(p)...); err != nil {
		return err
	}
	if p.OptMask&optTimestamps != 0 {
		if err := setWords(fd, unix.TCP_TIMESTAMP, p.Timestamp); err != nil {
			return err
		}
	}
	if !p.HasWindow {
		return nil
	}
	// struct tcp_repair_window: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
	return setWords(fd, unix.TCP_REPAIR_WINDOW,
		m.Rcv, m.SndWnd, max(m.SndWnd, p.RcvWnd), m.RcvWnd, m.Rcv)
}

// repairOptions lists (kind, value) pairs. The window scales change sides.
func repairOptions(p *Peer) []uint32 {
	var o []uint32
	if p.OptMask&optSACK != 0 {
		o = append(o, tcpoptSACKPerm, 0)
	}
	if p.OptMask&optWscale != 0 {
		o = append(o, tcpoptWindow, p.RcvWscale|p.SndWscale<<16)
	}
	if p.OptMask&optTimestamps != 0 {
		o = append(o, tcpoptTimestamp, 0)
	}
	return append(o, tcpoptMSS, p.MSSClamp)
}

// Activate puts a restored leg into service, when the application is restored.
// If the application's kernel had received the end of the input, the leg ends
// its sending side now and the caller must not write to it; otherwise Activate
// only removes the leg's protection.
func Activate(fd int, p *Peer) error {
	m, err := MirrorOf(p)
	if err != nil {
		return err
	}
	if m.OutputEnded {
		if err := unshield(fd); err != nil {
			return fmt.Errorf("activate leg: %w", err)
		}
	}
	if m.InputEnded {
		if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
			return fmt.Errorf("activate leg: end input: %w", err)
		}
	}
	return nil
}
