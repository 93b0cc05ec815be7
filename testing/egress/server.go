package egress

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/testing/load"
)

// server is a program that serves as a bank.
type server struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan struct{}
	dialer *load.Dialer
	target netip.AddrPort
}

// serve starts a program in the network namespace at path, and returns when ready
// finds it so.
func serve(ctx context.Context, path string, addr netip.Addr, ready func(context.Context, *server) error, args ...string) (*server, error) {
	d, err := load.NewDialer(path, 1)
	if err != nil {
		return nil, err
	}
	s := &server{ended: make(chan struct{}), dialer: d, target: Target(addr)}
	s.cmd = exec.Command("nsenter", append([]string{"--net=" + path}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	if err := s.cmd.Start(); err != nil {
		d.Close()
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait() // it is asked to end, by a signal
		close(s.ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for err = ready(ctx, s); err != nil; err = ready(ctx, s) {
		select {
		case <-s.ended:
			d.Close()
			return nil, fmt.Errorf("%s has ended: %s", args[0], s.output.Bytes())
		case <-ctx.Done():
			_ = s.Close()
			return nil, fmt.Errorf("%s does not serve: %w: %s", args[0], err, s.output.Bytes())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return s, nil
}

// Close ends the program.
func (s *server) Close() error {
	s.dialer.Close()
	err := s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
		return nil
	case <-time.After(readyLimit):
		_ = s.cmd.Process.Kill()
		<-s.ended
		return fmt.Errorf("%s did not end: %w", s.cmd.Args[2], err)
	}
}
