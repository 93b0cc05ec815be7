package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// readyTimeout bounds each wait for something that takes well under a second
// when all is well.
const readyTimeout = 30 * time.Second

// Rig is a private environment with the image that the benchmarks run.
type Rig struct {
	Env   *env.Env
	image string
	out   io.Writer
}

// Open brings an environment up, after destroying what a run that was killed
// left of it. Messages go to out. Close must be called also if it fails, which
// it does with env.ErrMissing when a tool is missing.
func Open(ctx context.Context, instance string, out io.Writer) (*Rig, error) {
	e, err := env.Locate(instance)
	if err != nil {
		return nil, err
	}
	r := &Rig{Env: e, out: out}
	if err := e.Down(ctx); err != nil {
		return r, err
	}
	if err := e.Up(ctx); err != nil {
		return r, err
	}
	r.image, err = ociimage.Import(ctx, e, "redis")
	return r, err
}

// Close destroys everything in the environment. Nil is allowed.
func (r *Rig) Close() error {
	if r == nil {
		return nil
	}
	return r.Env.Down(context.Background())
}

// keepLog saves what containerd and the shims have logged.
func (r *Rig) keepLog(file string) error {
	data, err := os.ReadFile(filepath.Join(r.Env.Dir, "containerd.log"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	r.Say("the log of containerd and its shims is in %s", file)
	return os.WriteFile(file, data, 0o644)
}

// Say prints a line about what is being done.
func (r *Rig) Say(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
}

// ClientCommand prepares a program to run in the clients' network namespace,
// PodCommand in a pod's.
func (r *Rig) ClientCommand(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	return r.PodCommand(ctx, r.Env.Client(), name, args...)
}

// PodCommand prepares a program to run in a pod's network namespace. It ends
// with ctx.
func (r *Rig) PodCommand(ctx context.Context, pod *env.Netns, name string, args ...string) (*exec.Cmd, error) {
	if _, err := exec.LookPath(name); err != nil {
		return nil, fmt.Errorf("%w: %s: run testing/env/install", env.ErrMissing, name)
	}
	// nsenter replaces itself with the program: killing one kills the other.
	return r.Env.Command(ctx, "nsenter", append([]string{"--net=" + pod.Path, name}, args...)...), nil
}

// Pause returns early, with an error, when ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Until calls f until it succeeds, and returns its last error when that takes
// longer than anything that still works.
func Until(ctx context.Context, f func() error) error {
	deadline := time.Now().Add(readyTimeout)
	for {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		if perr := Pause(ctx, 10*time.Millisecond); perr != nil {
			return fmt.Errorf("%w: %w", perr, err)
		}
	}
}

// Millis is the unit of all times in figures.
func Millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
