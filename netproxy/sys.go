package netproxy

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The loop's sockets never block, so the raw system calls below do not tell
// Go's scheduler about themselves: that saves two atomic operations and, on a
// busy machine, the hand-over of the processor.

func recvNB(fd int, buf []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), unix.MSG_DONTWAIT, 0, 0)
		if e == syscall.EINTR {
			continue
		}
		return int(n), e
	}
}

// peekNB reads without taking.
func peekNB(fd int, buf []byte) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), unix.MSG_DONTWAIT|unix.MSG_PEEK, 0, 0)
	return int(n), e
}

func sendNB(fd int, buf []byte) (int, syscall.Errno) { return sendFlagged(fd, buf, 0) }

func sendFlagged(fd int, buf []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL|flags, 0, 0)
		if e == syscall.EINTR {
			continue
		}
		return int(n), e
	}
}

// quietUS is how long a wait may be that Go's scheduler is not told about, in
// microseconds. It would take the processor away from the goroutine, which then
// has to get it back, and watch for that with a timer of 20 µs. A wait that ends
// before the next tick of the kernel's clock costs as well: it reprograms the
// processor's timer twice, which in a virtual machine leaves the machine. Signals
// end the wait, so that it holds nobody up who stops the world.
const quietUS = 10_000

// epollWait waits up to timeout microseconds; 0 polls.
func epollWait(epfd int, events []unix.EpollEvent, timeoutUS int64) (int, error) {
	quiet := unix.NsecToTimespec(min(timeoutUS, quietUS) * 1000)
	// epoll_pwait2 (Linux 5.11) takes nanoseconds.
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&quiet)), 0, 0)
	if n == 0 && e == 0 && timeoutUS > quietUS {
		rest := unix.NsecToTimespec((timeoutUS - quietUS) * 1000)
		n, _, e = syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&rest)), 0, 0)
	}
	if e == syscall.EINTR {
		return 0, nil
	}
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// established reports whether a connection that was begun stands, or has stood:
// an application that closes at once, such as a server that is full, has done so
// before we look.
func established(fd int) bool {
	var name unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(name))
	_, _, e := syscall.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size)))
	return e == 0
}

// setNetNS takes the calling thread to a network namespace.
func setNetNS(fd int) syscall.Errno {
	_, _, e := syscall.RawSyscall(unix.SYS_SETNS, uintptr(fd), unix.CLONE_NEWNET, 0)
	return e
}

// closeReset closes a socket with a RST instead of a FIN.
func closeReset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	_ = unix.Close(fd)
}

// yieldLimit is the longest that a yield takes while the application alone waits for
// this processor.
const yieldLimit = time.Millisecond

// schedYield lets another task run that waits for this processor, and reports whether
// to do so again. Where many wait, the kernel makes one that yields wait many times
// as long as one that sleeps for a moment.
func schedYield() bool {
	begun := time.Now()
	_, _, _ = syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	return time.Since(begun) < yieldLimit
}
