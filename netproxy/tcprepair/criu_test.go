package tcprepair

import (
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
)

// This file does to the application's socket what CRIU does (soccr/soccr.c).

const (
	sioOutqNSD = 0x894b // SIOCOUTQNSD
	soccrMark  = 0xc114
)

type image struct {
	Peer
	inq, outq []byte
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func ioctlInt(t testing.TB, fd int, req uint) uint32 {
	t.Helper()
	n, err := unix.IoctlGetInt(fd, req)
	must(t, "ioctl", err)
	return uint32(n)
}

func sentFIN(state uint8) bool {
	return state == stateFinWait1 || state == stateFinWait2 || state == stateClosing || state == stateLastAck
}

func gotFIN(state uint8) bool {
	return state == stateCloseWait || state == stateLastAck || state == stateClosing
}

// dump reads the socket's state and closes it silently.
func dump(t testing.TB, fd, family int, local, remote netip.AddrPort) *image {
	t.Helper()
	must(t, "repair on", setInt(fd, unix.TCP_REPAIR, repairOn))
	info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	must(t, "TCP_INFO", err)
	im := &image{Peer: Peer{
		Local: local, Remote: remote, Family: family, State: info.State,
		OptMask: uint32(info.Options), HasWindow: true,
	}}
	mss, err := unix.GetsockoptInt(fd, unix.SOL_TCP, unix.TCP_MAXSEG)
	must(t, "TCP_MAXSEG", err)
	im.MSSClamp = uint32(mss)
	scales := *(*byte)(unsafe.Add(unsafe.Pointer(info), 6)) // two bit fields
	im.SndWscale, im.RcvWscale = uint32(scales&15), uint32(scales>>4)
	ts, err := unix.GetsockoptInt(fd, unix.SOL_TCP, unix.TCP_TIMESTAMP)
	must(t, "TCP_TIMESTAMP", err)
	im.Timestamp = uint32(ts)
	for !im.dumpQueues(t, fd) {
	}
	unix.Close(fd)
	return im
}

// dumpQueues reads lengths, window and queues. It reports false if an
// acknowledgement arrived meanwhile: the socket is live, unlike CRIU's.
func (im *image) dumpQueues(t testing.TB, fd int) bool {
	t.Helper()
	im.OutqLen, im.UnsqLen = ioctlInt(t, fd, unix.SIOCOUTQ), ioctlInt(t, fd, sioOutqNSD)
	im.InqLen = ioctlInt(t, fd, unix.SIOCINQ)
	if sentFIN(im.State) {
		im.OutqLen -= min(im.OutqLen, 1)
		im.UnsqLen -= min(im.UnsqLen, 1)
	}
	im.InqSeq, im.inq = dumpQueue(t, fd, queueRecv, im.InqLen)
	im.OutqSeq, im.outq = dumpQueue(t, fd, queueSend, im.OutqLen)
	var w [5]uint32
	size := uint32(unsafe.Sizeof(w))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_TCP, unix.TCP_REPAIR_WINDOW,
		uintptr(unsafe.Pointer(&w)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		t.Fatal("TCP_REPAIR_WINDOW", errno)
	}
	im.SndWl1, im.SndWnd, im.MaxWindow, im.RcvWnd, im.RcvWup = w[0], w[1], w[2], w[3], w[4]
	return len(im.inq) == int(im.InqLen) && len(im.outq) == int(im.OutqLen)
}

// dumpQueue peeks at a queue; data is as long as the queue is now.
func dumpQueue(t testing.TB, fd, queue int, n uint32) (seq uint32, data []byte) {
	t.Helper()
	seq, err := getSeq(fd, queue)
	must(t, "sequence", err)
	if n == 0 {
		return seq, nil
	}
	buf := make([]byte, n+1)
	got, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	must(t, "peek", err)
	return seq, buf[:got]
}

func familySockaddr(family int, a netip.AddrPort) unix.Sockaddr {
	if family == unix.AF_INET6 {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return sockaddr(a)
}

// revive restores the application's socket.
func (im *image) revive(t testing.TB, ns int) (fd int) {
	t.Helper()
	nstest.In(t, ns, func() (err error) {
		fd, err = unix.Socket(im.Family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	// As CRIU does: room for the queues, in which nothing will be acknowledged yet.
	must(t, "sndbuf", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20))
	must(t, "rcvbuf", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
	must(t, "timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 5}))
	must(t, "repair on", setInt(fd, unix.TCP_REPAIR, repairOn))
	must(t, "bind", unix.Bind(fd, familySockaddr(im.Family, im.Local)))
	inq, outq, rcvWup, rcvWnd := im.InqSeq, im.OutqSeq, im.RcvWup, im.RcvWnd
	if gotFIN(im.State) {
		inq, rcvWup, rcvWnd = inq-1, rcvWup-1, rcvWnd+1
	}
	if sentFIN(im.State) {
		outq--
	}
	must(t, "seq", setSeq(fd, queueRecv, inq-im.InqLen))
	must(t, "seq", setSeq(fd, queueSend, outq-im.OutqLen))
	must(t, "connect", unix.Connect(fd, familySockaddr(im.Family, im.Remote)))
	o := []uint32{tcpoptMSS, im.MSSClamp}
	if im.OptMask&optSACK != 0 {
		o = append(o, tcpoptSACKPerm, 0)
	}
	if im.OptMask&optWscale != 0 {
		o = append(o, tcpoptWindow, im.SndWscale|im.RcvWscale<<16)
	}
	if im.OptMask&optTimestamps != 0 {
		o = append(o, tcpoptTimestamp, 0)
	}
	must(t, "options", setWords(fd, unix.TCP_REPAIR_OPTIONS, o...))
	must(t, "timestamp", setWords(fd, unix.TCP_TIMESTAMP, im.Timestamp))
	im.fill(t, fd)
	must(t, "window", setWords(fd, unix.TCP_REPAIR_WINDOW, im.SndWl1, im.SndWnd, im.MaxWindow, rcvWnd, rcvWup))
	im.fins(t, ns, fd, inq, outq)
	must(t, "repair off", setInt(fd, unix.TCP_REPAIR, 0))
	return fd
}

// fill puts the queues back. Unsent data is sent for real.
func (im *image) fill(t testing.TB, fd int) {
	t.Helper()
	must(t, "queue", setInt(fd, unix.TCP_REPAIR_QUEUE, queueRecv))
	send(t, fd, im.inq)
	must(t, "queue", setInt(fd, unix.TCP_REPAIR_QUEUE, queueSend))
	sent := len(im.outq) - int(im.UnsqLen)
	send(t, fd, im.outq[:sent])
	if im.UnsqLen > 0 {
		must(t, "repair off", setInt(fd, unix.TCP_REPAIR, 0))
		send(t, fd, im.outq[sent:])
		must(t, "repair on", setInt(fd, unix.TCP_REPAIR, repairOn))
	}
}

func send(t testing.TB, fd int, b []byte) {
	t.Helper()
	for len(b) > 0 {
		n, err := unix.Write(fd, b[:min(len(b), 1<<16)])
		must(t, "restore queue", err)
		b = b[n:]
	}
}

func (im *image) fins(t testing.TB, ns, fd int, inq, outq uint32) {
	t.Helper()
	shut := func(acked bool) {
		if acked {
			must(t, "queue", setInt(fd, unix.TCP_REPAIR_QUEUE, queueSend))
		}
		must(t, "shutdown", unix.Shutdown(fd, unix.SHUT_WR))
		if acked {
			must(t, "queue", setInt(fd, unix.TCP_REPAIR_QUEUE, queueNone))
		}
	}
	fake := func(ack uint32, flags byte) {
		must(t, "fake packet", sendRaw(ns, soccrMark, segment{
			from: im.Remote, to: im.Local, seq: inq, ack: ack, flags: flags,
			window: window(im.RcvWnd, 0), // unscaled, as soccr has it
		}))
	}
	if im.State == stateFinWait1 || im.State == stateFinWait2 || im.State == stateClosing {
		shut(im.State == stateFinWait2)
	}
	if gotFIN(im.State) {
		fake(outq-im.OutqLen, tcpFIN|tcpACK)
	}
	if im.State == stateLastAck {
		shut(false)
	}
	if im.State == stateFinWait2 {
		fake(outq+1, tcpACK)
	}
}
