package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

// filtersCommand is the argument with which the shim's binary tells the seccomp
// filters of a process. In the shim itself the reaper would take the process,
// which has to be stopped for it, for dead.
const filtersCommand = "seccomp-filters"

// filter gives the processes of a checkpoint the seccomp filter of the container
// that has been created. profiled: it takes the place of the one they had of runc.
//
// Errors: oci.ErrIncompatible if they had none.
func (g *guard) filter(cp *checkpoint, profiled bool) error {
	if g.filters == nil {
		programs, err := filtersInChild(g.ctx, g.c.Pid())
		if err != nil {
			return err
		}
		if len(programs) != 1 {
			return fmt.Errorf("the container has a seccomp profile, and runc has installed %d filters", len(programs))
		}
		g.filters = programs
	}
	err := criu.Confine(cp.images(), g.filters[0], profiled)
	if errors.Is(err, criu.ErrUnfiltered) {
		return misfit("seccomp: %s, and this container has a profile", err)
	}
	return err
}

// filtersInChild is criu.SeccompFilters in a process of its own.
func filtersInChild(ctx context.Context, pid int) (programs [][]byte, err error) {
	var out, log bytes.Buffer
	cmd := exec.Command("/proc/self/exe", filtersCommand, strconv.Itoa(pid))
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &out, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	child, err := lifecycle.StartCommand(cmd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filtersCommand, err)
	}
	defer context.AfterFunc(ctx, func() { _ = child.Signal(syscall.SIGKILL) })()
	status, err := child.Wait(context.WithoutCancel(ctx))
	if err == nil && status == 0 {
		err = json.Unmarshal(out.Bytes(), &programs)
	} else if err == nil {
		err = fmt.Errorf("status %d: %.2000s", status, strings.TrimSpace(log.String()))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filtersCommand, err)
	}
	return programs, nil
}

// RunCommand does what a shim has started its own binary for, if args, those of
// the process, say so.
//
// Errors: what has to be told on the standard error, before the process ends
// with another status than 0.
func RunCommand(ctx context.Context, args []string, in io.Reader, out io.Writer) (is bool, err error) {
	switch {
	case len(args) == 2 && args[1] == imageCommand:
		return true, makeImage(ctx, in, out)
	case len(args) == 3 && args[1] == filtersCommand:
		pid, err := strconv.Atoi(args[2])
		if err != nil {
			return true, fmt.Errorf("%s: %w", filtersCommand, err)
		}
		programs, err := criu.SeccompFilters(pid)
		if err != nil {
			return true, err
		}
		return true, json.NewEncoder(out).Encode(programs)
	}
	return false, nil
}
