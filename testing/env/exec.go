package env

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exec brings the environment up if needed, runs a command with its variables
// on the caller's standard streams, and returns the command's exit status.
// Signals go to the command; with down the environment is destroyed when the
// command has ended, however it ended.
func (e *Env) Exec(down bool, args []string) (status int, err error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	if down {
		defer func() { err = errors.Join(err, e.Down(context.Background())) }()
	}
	upDone := make(chan error, 1)
	go func() { upDone <- e.Up(ctx) }()
	select {
	case err = <-upDone:
	case s := <-signals:
		cancel()
		<-upDone
		return 128 + int(s.(syscall.Signal)), nil
	}
	if err != nil {
		return 1, err
	}
	return runForeground(e.Command(context.Background(), args[0], args[1:]...), signals)
}

// runForeground hands signals on. On a terminal the command stays in our
// process group, so that it may read from it; the terminal then interrupts it
// by itself. Elsewhere it gets a group of its own, which we signal as a whole.
func runForeground(cmd *exec.Cmd, signals <-chan os.Signal) (status int, err error) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	_, notTerminal := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	terminal := notTerminal == nil
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !terminal}
	if err := cmd.Start(); err != nil {
		return 127, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			sig := s.(syscall.Signal)
			switch {
			case !terminal:
				syscall.Kill(-cmd.Process.Pid, sig)
			case sig != syscall.SIGINT:
				cmd.Process.Signal(sig)
			}
		case err := <-done:
			return exitStatus(err)
		}
	}
}

// exitStatus maps the end of a command to the status that a shell would give.
func exitStatus(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 1, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}
