package shim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
)

// socket is a group's listener, to be inherited by the serving process.
type socket struct {
	address  string
	listener *net.UnixListener
	file     *os.File
}

// listen makes the socket of a group, in dir or, if that is empty, where
// containerd's shims have it. One that nobody serves is replaced.
//
// Errors: errdefs.ErrAlreadyExists, with the address, if it is served.
func listen(ctx context.Context, daemon, group, dir string, debug bool) (*socket, error) {
	s := &socket{}
	var err error
	if s.address, err = shim.SocketAddress(ctx, daemon, group, debug); err != nil {
		return s, err
	}
	if dir != "" {
		s.address = "unix://" + filepath.Join(dir, filepath.Base(s.address))
	}
	s.listener, err = shim.NewSocket(s.address)
	if err != nil {
		if !shim.SocketEaddrinuse(err) {
			return s, fmt.Errorf("create new shim socket: %w", err)
		}
		// The group has a shim, or had one that could not clean up.
		if !debug && served(ctx, s.address) {
			return s, fmt.Errorf("shim of %s: %w", group, errdefs.ErrAlreadyExists)
		}
		if err := shim.RemoveSocket(s.address); err != nil {
			return s, fmt.Errorf("remove pre-existing socket: %w", err)
		}
		if s.listener, err = shim.NewSocket(s.address); err != nil {
			return s, fmt.Errorf("try create new shim socket 2x: %w", err)
		}
	}
	if s.file, err = s.listener.File(); err != nil {
		s.listener.Close()
		_ = shim.RemoveSocket(s.address)
		return s, err
	}
	return s, nil
}

// served reports whether somebody listens on a socket. shim.CanConnect takes a
// delay of 100 ms for nobody, which on a busy machine would give a pod a second
// shim, and cut the containers of the first off.
func served(ctx context.Context, address string) bool {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// settle removes the socket again if *err says that nobody will serve it.
// Otherwise this process, which is about to end, leaves it open.
func (s *socket) settle(err *error) {
	if *err == nil {
		return
	}
	s.file.Close()
	s.listener.Close()
	_ = shim.RemoveSocket(s.address)
}
