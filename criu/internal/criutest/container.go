package criutest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Patience bounds the wait for what takes milliseconds when nothing else runs on
// the machine.
const Patience = time.Minute

// Container is a container made by runc in a directory of its own.
type Container struct {
	ID     string
	Root   string // of runc
	Bundle string
	Spec   *specs.Spec
	Pid    int
	// Stdio are the ends that belong to the container: kept open, so that a
	// restore can hand them over again.
	Stdio [3]*os.File
	// Input and Output are the other ends.
	Input, Output *os.File
	// Master is the terminal of a container that has one.
	Master *os.File

	t     testing.TB
	runc  string
	execs []int
}

// Create makes a container, as `runc create` leaves it, with the specification
// that ctr would give it, changed by opts. Everything is removed with the test.
func Create(t testing.TB, lower string, args []string, opts ...SpecOpt) *Container {
	t.Helper()
	// Processes whose runc is gone must come to us, as they do to a shim.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := &Container{
		ID: fmt.Sprintf("criutest-%d-%d", os.Getpid(), time.Now().UnixNano()), t: t, runc: Tool(t, "runc"),
		Root: filepath.Join(dir, "runc"), Bundle: filepath.Join(dir, "bundle"),
	}
	c.Spec = defaultSpec(t, c.ID, args, opts)
	c.mountRootfs(dir, lower)
	b, err := json.Marshal(c.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Bundle, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	c.admitRoot(filepath.Dir(dir))
	c.openStdio()
	pidFile := filepath.Join(dir, "pid")
	args = []string{"--root", c.Root, "--log", filepath.Join(dir, "runc.log"), "create", "--bundle", c.Bundle, "--pid-file", pidFile}
	masters := make(chan *os.File, 1)
	if c.Spec.Process.Terminal {
		args = append(args, "--console-socket", listenConsole(t, dir, masters))
	}
	cmd := exec.Command(c.runc, append(args, c.ID)...)
	if !c.Spec.Process.Terminal {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdio[0], c.Stdio[1], c.Stdio[2]
	}
	t.Cleanup(c.destroy)
	if err := cmd.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "runc.log"))
		t.Fatalf("runc create: %v\n%s", err, log)
	}
	if c.Spec.Process.Terminal {
		c.Master = <-masters
	}
	c.Pid = readPid(t, pidFile)
	return c
}

// SpecOpt changes the specification of a container before it is created.
type SpecOpt func(*specs.Spec)

// InNamespace makes the container join the namespace at path.
func InNamespace(typ specs.LinuxNamespaceType, path string) SpecOpt {
	return func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == typ {
				s.Linux.Namespaces[i].Path = path
				return
			}
		}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: typ, Path: path})
	}
}

// InUserNamespace gives the container a user namespace of its own, whose users are
// those of the host from first on.
func InUserNamespace(first uint32) SpecOpt {
	return func(s *specs.Spec) {
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: first, Size: 1 << 16}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
		InNamespace(specs.UserNamespace, "")(s)
	}
}

// admitRoot makes the root file system that of the root of the container's user
// namespace, and lets it pass through the directories above.
func (c *Container) admitRoot(above string) {
	c.t.Helper()
	if len(c.Spec.Linux.UIDMappings) == 0 {
		return
	}
	if err := os.Chmod(above, 0o755); err != nil {
		c.t.Fatal(err)
	}
	root := int(c.Spec.Linux.UIDMappings[0].HostID)
	err := filepath.WalkDir(c.Rootfs(), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, root, root)
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// defaultSpec is what ctr writes for an image without a configuration.
func defaultSpec(t testing.TB, id string, args []string, opts []SpecOpt) *specs.Spec {
	t.Helper()
	spec := new(specs.Spec)
	if err := json.Unmarshal([]byte(Run(t, Tool(t, "ctr"), "oci", "spec")), spec); err != nil {
		t.Fatal(err)
	}
	spec.Root = &specs.Root{Path: "rootfs"}
	spec.Process.Args = args
	spec.Process.Env = []string{"PATH=/usr/bin:/bin"}
	spec.Process.Terminal = false
	spec.Linux.CgroupsPath = "/" + id
	for _, o := range opts {
		o(spec)
	}
	return spec
}

func (c *Container) mountRootfs(dir, lower string) {
	c.t.Helper()
	rootfs := c.Rootfs()
	for _, d := range []string{rootfs, filepath.Join(dir, "upper"), filepath.Join(dir, "work")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, dir, dir)
	if err := unix.Mount("overlay", rootfs, "overlay", 0, opts); err != nil {
		c.t.Fatalf("mount overlay %s: %v", opts, err)
	}
	c.t.Cleanup(func() {
		if err := unix.Unmount(rootfs, unix.MNT_DETACH); err != nil {
			c.t.Errorf("unmount %s: %v", rootfs, err)
		}
	})
}

func (c *Container) openStdio() {
	c.t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	c.Stdio, c.Input, c.Output = [3]*os.File{inR, outW, outW}, inW, outR
	c.t.Cleanup(func() {
		for _, f := range []*os.File{inR, inW, outR, outW} {
			f.Close()
		}
	})
}

// Rootfs returns where the root file system is mounted.
func (c *Container) Rootfs() string { return filepath.Join(c.Bundle, "rootfs") }

// Start starts the created container, and returns when its init is no longer
// runc's program, of which CRIU could not dump a mapping.
func (c *Container) Start() {
	c.t.Helper()
	c.Runc("start", c.ID)
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.Pid))
		if err != nil || !strings.Contains(exe, "runc") {
			return // it may have ended as well
		}
	}
	c.t.Fatalf("the init of %s is still runc's", c.ID)
}

// Runc runs a command of runc and returns its output.
func (c *Container) Runc(args ...string) string {
	c.t.Helper()
	return Run(c.t, c.runc, append([]string{"--root", c.Root}, args...)...)
}

// WaitOutput reads the container's output until it contains want.
func (c *Container) WaitOutput(want string) {
	c.t.Helper()
	if err := c.Output.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		c.t.Fatal(err)
	}
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), want) {
		n, err := c.Output.Read(buf)
		if err != nil {
			c.t.Fatalf("output %q has no %q: %v", got.String(), want, err)
		}
		got.Write(buf[:n])
	}
}

// WaitFor waits until a file exists in the container.
func (c *Container) WaitFor(path string) {
	c.t.Helper()
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", c.Pid, path)); err == nil {
			return
		}
	}
	c.t.Fatalf("no %s in the container after %v", path, Patience)
}

// ExecDetached starts a process in the container and leaves it running. It is
// waited for when the container crashes: the kernel does not let the init of a
// PID namespace end before.
func (c *Container) ExecDetached(args ...string) { c.ExecDetachedAs("0:0", args...) }

// ExecDetachedAs is ExecDetached as a user and group, given by their numbers.
func (c *Container) ExecDetachedAs(user string, args ...string) {
	c.t.Helper()
	pidFile := filepath.Join(c.t.TempDir(), "pid")
	// No pipes: the process would hold them open.
	err := exec.Command(c.runc, append([]string{"--root", c.Root, "exec", "--detach", "--user", user, "--pid-file", pidFile, c.ID}, args...)...).Run()
	if err != nil {
		c.t.Fatalf("runc exec %v: %v", args, err)
	}
	c.execs = append(c.execs, readPid(c.t, pidFile))
}

func readPid(t testing.TB, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Crash kills the init and waits for it, as a shim does.
func (c *Container) Crash() {
	c.t.Helper()
	if err := unix.Kill(c.Pid, unix.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	c.Wait()
}

// Wait waits for the end of the init.
func (c *Container) Wait() unix.WaitStatus {
	c.t.Helper()
	c.reapExecs()
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(c.Pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			c.t.Fatalf("wait for %d: %v", c.Pid, err)
		}
		return ws
	}
}

func (c *Container) reapExecs() {
	for _, pid := range c.execs {
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	c.execs = nil
}

func (c *Container) destroy() {
	if c.Pid > 0 {
		_ = unix.Kill(c.Pid, unix.SIGKILL)
		c.reapExecs()
		_, _ = unix.Wait4(c.Pid, nil, 0, nil)
	}
	if _, err := os.Stat(filepath.Join(c.Root, c.ID)); err != nil {
		return
	}
	out, err := exec.Command(c.runc, "--root", c.Root, "delete", "--force", c.ID).CombinedOutput()
	if err != nil {
		c.t.Errorf("runc delete: %v\n%s", err, out)
	}
}
