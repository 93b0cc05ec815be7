package isolate

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// probeVariable makes the test binary an isolated program that runs a shell
// script.
const probeVariable = "CRSC_ISOLATE_PROBE"

func TestMain(m *testing.M) {
	script := os.Getenv(probeVariable)
	if script == "" {
		os.Exit(m.Run())
	}
	inside, status, err := Enter(Options{Name: "probe"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(max(status, 1))
	}
	if !inside {
		os.Exit(status)
	}
	if err := syscall.Exec("/bin/sh", []string{"sh", "-c", script}, os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

func isolated(script string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), probeVariable+"="+script)
	return cmd
}

func TestWhatHappensInsideStaysInside(t *testing.T) {
	mark := fmt.Sprintf("crsc-isolate-test-%d", os.Getpid())
	out, err := isolated(`set -e
		touch /run/` + mark + ` /etc/` + mark + `
		mkdir /sys/fs/cgroup/pids/` + mark + ` /var/lib/` + mark + `
		mount -t tmpfs none /var/lib/` + mark + `
		ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1
		readlink /proc/self/ns/net; cat /proc/1/cgroup | cut -d: -f3 | sort -u
	`).CombinedOutput()
	require.NoError(t, err, "%s", out)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, lines, 4, "%s", out)
	assert.Equal(t, []string{"1", "1"}, lines[:2], "only the loopback device, up")
	assert.Equal(t, "/", lines[3], "the cgroup namespace's root")
	here, err := os.Readlink("/proc/self/ns/net")
	require.NoError(t, err)
	assert.NotEqual(t, here, lines[2])
	for _, dir := range []string{"/run", "/etc", "/var/lib", "/sys/fs/cgroup/pids"} {
		assert.NoFileExists(t, filepath.Join(dir, mark))
	}
	assertNoGroups(t)
}

func TestExitStatusAndSignalArePassedOn(t *testing.T) {
	for script, want := range map[string]int{"exit 7": 7, "kill -9 $$": 137} {
		err := isolated(script).Run()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		assert.Equal(t, want, exit.ExitCode(), script)
	}
	assertNoGroups(t)
}

// TestSignalEndsAllInside: a listener that has left its session ends too.
func TestSignalEndsAllInside(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alive")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	cmd := isolated("setsid sh -c 'while sleep 0.02; do echo x >>" + file + "; done' & wait")
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return size(t, file) > 0 }, time.Minute, 5*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	assert.Equal(t, 143, exit.ExitCode())
	before := size(t, file)
	time.Sleep(200 * time.Millisecond)
	assert.Equal(t, before, size(t, file))
	assertNoGroups(t)
}

func size(t *testing.T, file string) int64 {
	st, err := os.Stat(file)
	require.NoError(t, err)
	return st.Size()
}

func assertNoGroups(t *testing.T) {
	t.Helper()
	all, err := hierarchies()
	require.NoError(t, err)
	for _, h := range all {
		left, err := filepath.Glob(filepath.Join(h.dir, groupPrefix+"probe-*"))
		require.NoError(t, err)
		assert.Empty(t, left)
	}
}

func TestControllersOfMountOptions(t *testing.T) {
	assert.Equal(t, "cpu,cpuacct", controllers("rw,nosuid,nodev,noexec,relatime,cpu,cpuacct"))
	assert.Equal(t, "name=systemd", controllers("rw,relatime,xattr,name=systemd"))
}
