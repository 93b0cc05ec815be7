package tcprepair

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The options of a leg are read and written without telling Go's scheduler: each
// connection needs some fifteen of these calls, none of them waits, and the notice
// costs as much as the call.

// setOption sets an option whose value is an int.
func setOption(fd, level, opt, v int) error {
	value := int32(v)
	_, _, e := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
	if e != 0 {
		return e
	}
	return nil
}

// getOption reads an option of at most *size bytes into value.
func getOption(fd, level, opt int, value unsafe.Pointer, size *uint32) error {
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(value), uintptr(unsafe.Pointer(size)), 0)
	if e != 0 {
		return e
	}
	return nil
}
