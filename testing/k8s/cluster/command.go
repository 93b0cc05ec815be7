package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Command prepares a program with the cluster's environment.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	for _, dir := range []string{filepath.Join(c.dir, "bin"), c.tools} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil && !strings.Contains(name, "/") {
			name = path
			break
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = c.Root, c.env, 2*time.Second
	return cmd
}

// Run runs a program and returns its standard output. The error quotes the rest.
func (c *Cluster) Run(ctx context.Context, name string, args ...string) (string, error) {
	return run(c.Command(ctx, name, args...), name, args)
}

// Kubectl runs kubectl.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.Run(ctx, "kubectl", args...)
}

// Apply applies manifests given as text.
func (c *Cluster) Apply(ctx context.Context, manifests string, args ...string) error {
	cmd := c.Command(ctx, "kubectl", append([]string{"apply", "-f", "-"}, args...)...)
	cmd.Stdin = strings.NewReader(manifests)
	_, err := run(cmd, "kubectl", []string{"apply"})
	return err
}

func run(cmd *exec.Cmd, name string, args []string) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// Await repeats a check until it succeeds or the time is over; the error is
// that of the last try.
func (c *Cluster) Await(ctx context.Context, most time.Duration, check func(context.Context) error) error {
	return await(ctx, most, check)
}
