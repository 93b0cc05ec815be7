package freezebench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// errNoPodman names the remedy.
var errNoPodman = errors.New("podman is missing: run testing/env/install podman")

// podmanSource calls podman container checkpoint on a container of podman's,
// with the same runc and CRIU and the same image.
type podmanSource struct {
	interval time.Duration

	dir     string // of this container
	program string // directory with podman and its libraries
	args    []string
	environ []string
}

func (f *podmanSource) failures() (int, string) { return 0, "" }

func (f *podmanSource) prefix() string { return "podman-" }

// prepare writes podman's configuration: nothing of it is the host's.
func (f *podmanSource) prepare(rig *bench.Rig, id string) error {
	f.program = filepath.Join(filepath.Dir(rig.Env.ToolsDir), "podman")
	if unix.Access(filepath.Join(f.program, "usr/bin/podman"), unix.X_OK) != nil {
		return errNoPodman
	}
	f.dir = filepath.Join(rig.Env.Dir, id)
	if err := os.MkdirAll(filepath.Join(f.dir, "rootfs"), 0o700); err != nil {
		return err
	}
	conf := fmt.Sprintf("[containers]\nlog_driver = \"k8s-file\"\napparmor_profile = \"unconfined\"\ndefault_sysctls = []\n"+
		"[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nruntime = \"runc\"\nconmon_path = [%q]\n[engine.runtimes]\nrunc = [%q]\n",
		filepath.Join(f.program, "usr/bin/conmon"), filepath.Join(rig.Env.ToolsDir, "runc"))
	storage := fmt.Sprintf("[storage]\ndriver = \"vfs\"\nrunroot = %q\ngraphroot = %q\n", f.file("run"), f.file("storage"))
	err := errors.Join(os.WriteFile(f.file("containers.conf"), []byte(conf), 0o600),
		os.WriteFile(f.file("storage.conf"), []byte(storage), 0o600),
		os.WriteFile(f.file("criu.conf"), []byte(criuConfig), 0o600))
	f.args = []string{"--root", f.file("storage"), "--runroot", f.file("run"), "--storage-driver", "vfs", "--tmpdir", f.file("tmp")}
	f.environ = append(rig.Env.Environ(), "CONTAINERS_CONF="+f.file("containers.conf"), "CONTAINERS_STORAGE_CONF="+f.file("storage.conf"),
		"LD_LIBRARY_PATH="+filepath.Join(f.program, "usr/lib/x86_64-linux-gnu"), "TMPDIR="+f.dir)
	return err
}

func (f *podmanSource) file(name string) string { return filepath.Join(f.dir, name) }

func (f *podmanSource) podman(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(f.program, "usr/bin/podman"), append(f.args, args...)...)
	cmd.Env = f.environ
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("podman %v: %w", args[:2], err)
	}
	return out, nil
}

func (f *podmanSource) start(ctx context.Context, rig *bench.Rig, id string) (*bench.Server, error) {
	pod, err := rig.Env.MakePod(id)
	if err != nil {
		return nil, err
	}
	if err := f.prepare(rig, id); err != nil {
		return nil, err
	}
	if _, err := rig.Env.Ctr(ctx, "images", "mount", "--rw", ociimage.Ref("redis"), f.file("rootfs")); err != nil {
		return nil, err
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	// podman's own defaults ask for more than a process without
	// CAP_SYS_RESOURCE may give.
	most := strconv.FormatUint(files.Max, 10)
	_, err = f.podman(ctx, "run", "--detach", "--name", id, "--network", "ns:"+pod.Path, "--annotation", "org.criu.config="+f.file("criu.conf"),
		"--ulimit", "nofile=1024:"+most, "--ulimit", "nproc=4096:4096", "--pids-limit", "1000", "--rootfs", f.file("rootfs"),
		"redis-server", "--save", "", "--appendonly", "no", "--protected-mode", "no", "--bind", "*", "-::*")
	if err != nil {
		return nil, err
	}
	s := &bench.Server{ID: id, Pod: pod, Addr: netip.AddrPortFrom(pod.IP4, 6379)}
	return s, rig.AwaitRedis(ctx, s.Addr)
}

func (f *podmanSource) stop(ctx context.Context, rig *bench.Rig, s *bench.Server) error {
	_, err := f.podman(ctx, "rm", "--force", "--time", "0", s.ID)
	_, uerr := rig.Env.Ctr(ctx, "images", "unmount", "--rm", f.file("rootfs"))
	return errors.Join(err, uerr)
}

func (f *podmanSource) collect(ctx context.Context, _ *bench.Rig, s *bench.Server, count int) ([]checkpoint, error) {
	var out []checkpoint
	for len(out) < count {
		if err := bench.Pause(ctx, f.interval); err != nil {
			return nil, err
		}
		c := checkpoint{begun: time.Now()}
		said, err := f.podman(ctx, "container", "checkpoint", "--leave-running", "--tcp-established", "--print-stats", s.ID)
		if err != nil {
			return nil, err
		}
		c.total = bench.Millis(time.Since(c.begun))
		if c.frozen, err = frozenByPodman(said); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// frozenByPodman reads what --print-stats prints, in milliseconds. It is the
// same sum as the shim's frozen_ms.
func frozenByPodman(said []byte) (float64, error) {
	var st struct {
		Containers []struct {
			CRIU struct {
				Freezing float64 `json:"freezing_time"`
				Frozen   float64 `json:"frozen_time"`
			} `json:"criu_statistics"`
		} `json:"container_statistics"`
	}
	if err := json.Unmarshal(said, &st); err != nil {
		return 0, fmt.Errorf("podman's statistics: %w", err)
	}
	if len(st.Containers) != 1 || st.Containers[0].CRIU.Frozen == 0 {
		return 0, fmt.Errorf("podman's statistics are incomplete: %s", said)
	}
	return (st.Containers[0].CRIU.Freezing + st.Containers[0].CRIU.Frozen) / 1000, nil
}
