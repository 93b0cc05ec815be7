package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/console"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

// runInTerminal runs ctr in a terminal of 80 by 24 and types the lines: the first
// at the prompt, the others when there is some output.
func runInTerminal(t *testing.T, d *shimtest.Daemon, lines []string, shows string, args ...string) (output string, code int) {
	t.Helper()
	pty, slavePath, err := console.NewPty()
	require.NoError(t, err)
	defer pty.Close()
	require.NoError(t, pty.Resize(console.WinSize{Width: 80, Height: 24}))
	slave, err := os.OpenFile(slavePath, os.O_RDWR, 0)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := d.Command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	require.NoError(t, cmd.Start())
	slave.Close()
	var out shimtest.Buffer
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		buf := make([]byte, 4096)
		for {
			n, err := pty.Read(buf)
			_, _ = out.Write(buf[:n])
			if err != nil {
				return // EIO: ctr has ended
			}
		}
	}()
	// The shell's prompt: the terminal is connected and has its size.
	shimtest.Eventually(t, "prompt", func() bool { return len(out.String()) > 0 })
	time.Sleep(200 * time.Millisecond)
	for _, line := range lines {
		_, err = pty.Write([]byte(line))
		require.NoError(t, err)
		shimtest.Eventually(t, shows, func() bool { return strings.Contains(out.String(), shows) })
	}
	err = cmd.Wait()
	require.NoError(t, ctx.Err(), out.String())
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	<-copied
	return out.String(), cmd.ProcessState.ExitCode()
}

// logDir is where the logging binary of the test writes.
func logDir(t *testing.T) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("crsc-log-%d-%x", os.Getpid(), hash(t.Name())))
}

func hash(s string) (h uint32) {
	for _, c := range []byte(s) {
		h = h*31 + uint32(c)
	}
	return h
}

// logBinary returns the URI of a logging binary that writes what comes at its
// descriptors to logDir.
func logBinary(t *testing.T) string {
	t.Helper()
	dir := logDir(t)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	script := filepath.Join(dir, "logger")
	require.NoError(t, os.WriteFile(script, []byte(fmt.Sprintf(`#!/bin/sh
cd %q || exit 1
echo "$CONTAINER_ID $CONTAINER_NAMESPACE" >id
trap : TERM
/bin/busybox cat <&3 >>3 5>&- &
/bin/busybox cat <&4 >>4 5>&- &
exec 5>&-
wait; wait
`, dir)), 0o755))
	return "binary://" + script
}

// hostPIDSpec writes a spec of a container that shares the host's PID
// namespace, with a child of init, and returns its path.
func hostPIDSpec(t *testing.T, d *shimtest.Daemon) string {
	t.Helper()
	id := fmt.Sprintf("spec-%x", hash(t.Name()))
	d.Ctr("container", "create", shimtest.Image, id, "sh", "-c", "sleep 1000 & wait")
	var info struct{ Spec *specs.Spec }
	require.NoError(t, json.Unmarshal([]byte(d.Ctr("container", "info", id)), &info))
	d.Ctr("container", "delete", id)
	spec := info.Spec
	rootfs := filepath.Join(d.Dir, "rootfs-"+id)
	require.NoError(t, os.MkdirAll(rootfs, 0o755))
	d.Ctr("image", "mount", shimtest.Image, rootfs)
	t.Cleanup(func() { d.Ctr("image", "unmount", "--rm", rootfs) })
	spec.Root.Path = rootfs
	var kept []specs.LinuxNamespace
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type != specs.PIDNamespace {
			kept = append(kept, ns)
		}
	}
	spec.Linux.Namespaces = kept
	data, err := json.Marshal(spec)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// addAnnotation adds an annotation to the spec at path.
func addAnnotation(t *testing.T, path, key, value string) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var spec specs.Spec
	require.NoError(t, json.Unmarshal(data, &spec))
	if spec.Annotations == nil {
		spec.Annotations = map[string]string{}
	}
	spec.Annotations[key] = value
	data, err = json.Marshal(&spec)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o600))
}
