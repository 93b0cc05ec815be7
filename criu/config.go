package criu

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// configText are options of criu(8) that its RPC does not have.
//
// The default for file-validation is to map each file that a task maps, and to
// look for its build ID, while the tasks are frozen: 20 µs each. Root file system
// and images belong together here: what is in it is either of the container's
// image, or goes back with the memory.
const configText = "file-validation filesize\n"

// configFile is configText as a file for a child. The caller closes it.
func configFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("criu.conf", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("configuration of criu: %w", os.NewSyscallError("memfd_create", err))
	}
	f := os.NewFile(uintptr(fd), "criu.conf")
	if _, err := f.WriteString(configText); err != nil {
		f.Close()
		return nil, fmt.Errorf("configuration of criu: %w", err)
	}
	return f, nil
}
