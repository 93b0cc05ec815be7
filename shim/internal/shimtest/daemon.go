package shimtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every ctr command, and every wait for what takes well under a
// second when nothing else runs on the machine.
const patience = time.Minute

// Image is the name of the image that a Daemon has: busybox with its applets.
const Image = "localhost/crsc-test/busybox:latest"

// Daemon is a containerd of its own.
type Daemon struct {
	// Namespace holds all containers; it is unique on the machine.
	Namespace string
	// Dir is the daemon's directory, removed with it.
	Dir string
	// Log is the file with what the daemon and its shims wrote.
	Log string

	t       testing.TB
	path    string // PATH of the daemon and its shims
	run     *running
	address string
}

// running is shared by the copies of a Daemon that For makes.
type running struct{ cmd *exec.Cmd }

// Start runs a daemon until the test ends. shim is the binary that serves as
// io.containerd.crsc.v1.
func Start(t testing.TB, shim string) *Daemon {
	t.Helper()
	tools := requireTools(t)
	dir, err := os.MkdirTemp("", "crsc")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{
		Namespace: fmt.Sprintf("crsc-test-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9),
		Dir:       dir,
		Log:       filepath.Join(dir, "containerd.log"),
		t:         t,
		path:      filepath.Join(dir, "bin") + ":" + tools + ":" + os.Getenv("PATH"),
		address:   filepath.Join(dir, "c.sock"),
		run:       &running{},
	}
	t.Cleanup(d.stop)
	d.must(os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	copyBinary(t, shim, filepath.Join(dir, "bin", "containerd-shim-crsc-v1"))
	d.Launch()
	archive := filepath.Join(dir, "image.tar")
	d.must(writeImage(archive))
	d.Ctr("image", "import", archive)
	return d
}

// For returns d for a subtest, which then fails instead of the test that has
// started d.
func (d *Daemon) For(t testing.TB) *Daemon {
	sub := *d
	sub.t = t
	return &sub
}

// Address is that of the daemon's gRPC socket.
func (d *Daemon) Address() string { return d.address }

// requireTools returns the directory with the tools that testing/env/install
// builds.
func requireTools(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	cache := os.Getenv("CRSC_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(base, "crsc")
	}
	for _, tool := range []string{"containerd", "ctr", "runc", "criu", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(filepath.Join(cache, "bin", tool)); err != nil {
			t.Fatalf("%s is missing (%v): run testing/env/install", tool, err)
		}
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Fatalf("busybox-static is missing (%v): run testing/env/install", err)
	}
	return filepath.Join(cache, "bin")
}

// Launch starts the daemon, again after Stop.
func (d *Daemon) Launch() {
	d.t.Helper()
	config := filepath.Join(d.Dir, "config.toml")
	d.must(os.WriteFile(config, []byte(fmt.Sprintf(`version = 3
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing",
  "io.containerd.monitor.container.v1.restart", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = %q
[debug]
  level = "warn"
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, filepath.Join(d.Dir, "root"), filepath.Join(d.Dir, "state"), d.address, filepath.Join(d.Dir, "opt"))), 0o600))
	out, err := os.OpenFile(d.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	d.must(err)
	defer out.Close()
	cmd := exec.Command(filepath.Join(d.tools(), "containerd"), "--config", config)
	// A shim that is built with -race reports to a file, see stop.
	// XDG_RUNTIME_DIR is where containerd leaves the images of checkpoints.
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+filepath.Dir(config), "PATH="+d.path, "GORACE=atexit_sleep_ms=0 log_path="+d.Log+".race")
	cmd.Stdout, cmd.Stderr = out, out
	// The daemon and its shims must not get the test's terminal signals.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d.must(cmd.Start())
	d.run.cmd = cmd
	Eventually(d.t, "containerd answers", func() bool {
		_, err := d.TryCtr("version")
		return err == nil
	})
}

// Command returns a ctr command, to be run by the caller. The test kills it
// when it takes longer than ctx.
func (d *Daemon) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", d.address, "--namespace", d.Namespace}, args...)...)
	cmd.Path = filepath.Join(d.tools(), "ctr")
	cmd.Err = nil
	cmd.Env = append(os.Environ(), "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1")
	return cmd
}

// TryCtr runs ctr and returns its output; the error has what it wrote to
// stderr.
func (d *Daemon) TryCtr(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := d.Command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}

// Ctr runs ctr, which must succeed, and returns its output.
func (d *Daemon) Ctr(args ...string) string {
	d.t.Helper()
	out, err := d.TryCtr(args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// ShimPid returns the PID of the shim that serves a container.
func (d *Daemon) ShimPid(id string) int {
	d.t.Helper()
	for _, p := range d.shims() {
		if p.id == id {
			return p.pid
		}
	}
	d.t.Fatalf("no shim of %s", id)
	return 0
}

// Stop ends the daemon; its shims go on. Launch starts it again.
func (d *Daemon) Stop() {
	d.t.Helper()
	d.must(d.run.cmd.Process.Signal(syscall.SIGTERM))
	_ = d.run.cmd.Wait()
}

// tools is the directory of the programs.
func (d *Daemon) tools() string { return strings.Split(d.path, ":")[1] }

type shimProcess struct {
	pid int
	id  string
}

// shims finds the serving shims by their command line, which names the
// daemon's namespace.
func (d *Daemon) shims() []shimProcess {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	d.must(err)
	var found []shimProcess
	for _, line := range lines {
		data, _ := os.ReadFile(line)
		args := strings.Split(string(data), "\x00")
		if len(args) < 5 || args[1] != "-namespace" || args[2] != d.Namespace || args[3] != "-id" {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(line)))
		found = append(found, shimProcess{pid, args[4]})
	}
	return found
}

func (d *Daemon) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// Eventually waits until ok returns true.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
