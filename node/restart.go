package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// way says how containerd is restarted, and the systemd unit that it is in where
// that is needed.
func (o Options) way(d daemon) (how Restart, unit string, err error) {
	how = o.Restart
	if how == RestartAuto {
		if how, err = o.autoWay(); err != nil {
			return "", "", err
		}
	}
	if how != RestartSystemd {
		return how, "", nil
	}
	if o.Service != "" {
		return how, o.Service, nil
	}
	if len(o.layout.units) == 0 {
		return how, "containerd.service", nil
	}
	if d.pid == 0 {
		return "", "", fmt.Errorf("%w: the containerd of %s does not answer at %s: start it, or choose --restart=none", ErrRestart, o.layout.name, o.Socket)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", d.pid))
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrRestart, err)
	}
	if unit = unitIn(string(text), o.layout.units); unit == "" {
		return "", "", fmt.Errorf("%w: the cgroup of process %d at %s is in no unit of %s: name the unit that starts it with --service, or choose --restart=none and restart it yourself",
			ErrRestart, d.pid, o.Socket, o.layout.name)
	}
	return how, unit, nil
}

func (o Options) autoWay() (Restart, error) {
	if o.layout.watched {
		return RestartWatch, nil
	}
	if _, err := os.Stat(o.here("/run/systemd/system")); err == nil {
		return RestartSystemd, nil
	}
	if o.layout.child {
		return "", fmt.Errorf("%w: %s ends with its containerd, and without systemd nobody may start it again: choose --restart=none and restart %[2]s yourself, or --restart=signal if something does",
			ErrRestart, o.layout.name)
	}
	return RestartSignal, nil
}

// unitIn finds the service in the text of /proc/<pid>/cgroup; empty: there is
// none with one of the names in its own. Others are not for us to restart: who
// has started k3s in a shell is in the unit of that.
func unitIn(cgroup string, names []string) string {
	for line := range strings.Lines(cgroup) {
		for _, part := range strings.Split(strings.TrimSpace(line), "/") {
			if !strings.HasSuffix(part, ".service") {
				continue
			}
			for _, name := range names {
				if strings.Contains(part, name) {
					return part
				}
			}
		}
	}
	return ""
}

// restart restarts containerd, which was old before its configuration changed,
// and waits until it accepts connections again.
func (o Options) restart(ctx context.Context, old daemon) error {
	ctx, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	how, unit, err := o.way(old)
	if err != nil {
		return err
	}
	switch how {
	case RestartNone:
		o.Log("containerd's configuration has changed: restart it for that to take effect")
		return nil
	case RestartSystemd:
		systemctl, err := o.find("systemctl")
		if err != nil {
			return err
		}
		if out, err := onHost(ctx, o.Host, systemctl, "restart", unit).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: systemctl restart %s: %w: %s", ErrRestart, unit, err, strings.TrimSpace(string(out)))
		}
	case RestartWatch:
		err = o.watchDaemon(ctx, old)
	case RestartSignal:
		err = o.signalDaemon(ctx)
	}
	if err != nil {
		return err
	}
	if err := o.awaitSocket(ctx); err != nil {
		return fmt.Errorf("%w: it does not come back within %v: %w", ErrRestart, o.Patience, err)
	}
	o.Log("containerd restarted (%s)", how)
	return nil
}

// watchDaemon waits until whoever watches the drop-ins has restarted containerd,
// and does it itself if they have not after a quarter of the patience: a
// directory that has only just been made is watched by nobody.
func (o Options) watchDaemon(ctx context.Context, old daemon) error {
	soon, cancel := context.WithTimeout(ctx, o.Patience/4)
	defer cancel()
	if err := o.awaitOther(soon, old); err == nil || ctx.Err() != nil {
		return err
	}
	return o.signalDaemon(ctx)
}

// awaitOther waits until containerd is another process.
func (o Options) awaitOther(ctx context.Context, old daemon) error {
	for {
		if d, err := o.daemon(); err == nil && d.pid != old.pid {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%w: nothing has started containerd again: %w", ErrRestart, err)
		}
	}
}

// find looks for a program of the node.
func (o Options) find(name string) (string, error) {
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin"} {
		if st, err := os.Stat(o.here(filepath.Join(dir, name))); err == nil && st.Mode().IsRegular() {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("%w: the node has no %s", ErrRestart, name)
}

// signalDaemon ends containerd and waits until there is another.
func (o Options) signalDaemon(ctx context.Context) error {
	old, err := o.daemon()
	if err != nil {
		return err
	}
	if err := syscall.Kill(old.pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("%w: signal process %d: %w", ErrRestart, old.pid, err)
	}
	return o.awaitOther(ctx, old)
}

func (o Options) awaitSocket(ctx context.Context) error {
	for {
		c, err := net.Dial("unix", o.here(o.Socket))
		if err == nil {
			return c.Close()
		}
		if perr := pause(ctx); perr != nil {
			return errors.Join(perr, err)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}
