package recovery

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/criu"
)

// criMounts are the bind mounts of a container as containerd 2.2's CRI and
// kubelet 1.34 make them.
func criMounts(root string) map[string]specs.Mount {
	const pod = "/var/lib/kubelet/pods/0f5b0bd4-2ac2-4a1c-b9a5-6f0b2a0a4c3e"
	const sandbox = "io.containerd.grpc.v1.cri/sandboxes/8b0c"
	bind := func(dst, src, access string) specs.Mount {
		return specs.Mount{Type: "bind", Destination: dst, Source: root + src, Options: []string{"rbind", "rprivate", access}}
	}
	return map[string]specs.Mount{
		"hosts":       bind("/etc/hosts", pod+"/etc-hosts", "rw"),
		"hostname":    bind("/etc/hostname", "/var/lib/containerd/"+sandbox+"/hostname", "rw"),
		"resolv.conf": bind("/etc/resolv.conf", "/var/lib/containerd/"+sandbox+"/resolv.conf", "rw"),
		"termination": bind("/dev/termination-log", pod+"/containers/app/0b1fe1f4", "rw"),
		"own message": bind("/var/message", pod+"/containers/app/0b1fe1f5", "rw"),
		"token":       bind("/var/run/secrets/kubernetes.io/serviceaccount", pod+"/volumes/kubernetes.io~projected/kube-api-access-x", "ro"),
		"config":      bind("/config", pod+"/volumes/kubernetes.io~configmap/config", "ro"),
		"shm":         bind("/dev/shm", "/run/containerd/"+sandbox+"/shm", "rw"),
		"empty":       bind("/cache", pod+"/volumes/kubernetes.io~empty-dir/cache", "rw"),
		"claim":       bind("/data", pod+"/volumes/kubernetes.io~csi/pvc-1/mount", "rw"),
		"host shm":    bind("/dev/shm", "/dev/shm", "rw"),
		"not empty":   bind("/evil", pod+"/volumes/kubernetes.io~empty-dir/../../etc", "rw"),
	}
}

func TestTreatment(t *testing.T) {
	for name, want := range map[string]map[config.Volumes]treatment{
		"hosts":       {config.VolumesAuto: volumeSafe, config.VolumesRefuse: volumeSafe, config.VolumesSnapshot: volumeSafe},
		"hostname":    {config.VolumesAuto: volumeSafe},
		"resolv.conf": {config.VolumesAuto: volumeSafe},
		"termination": {config.VolumesAuto: volumeSafe},
		"own message": {config.VolumesAuto: volumeSafe},
		"shm":         {config.VolumesAuto: volumeSnapshot, config.VolumesRefuse: volumeRefused, config.VolumesSafe: volumeSafe},
		"empty":       {config.VolumesAuto: volumeSnapshot, config.VolumesRefuse: volumeRefused, config.VolumesSafe: volumeSafe},
		"claim":       {config.VolumesAuto: volumeRefused, config.VolumesSnapshot: volumeSnapshot, config.VolumesSafe: volumeSafe},
		"host shm":    {config.VolumesAuto: volumeRefused},
		"not empty":   {config.VolumesAuto: volumeRefused},
	} {
		vs := specVolumes(&specs.Spec{Mounts: []specs.Mount{criMounts("")[name]}})
		require.Len(t, vs, 1, name)
		for mode, treated := range want {
			require.Equal(t, treated, vs[0].treatment(&config.Config{Volumes: mode}, nil), "%s, %s", name, mode)
			if treated != volumeSafe {
				require.Equal(t, volumeSafe, vs[0].treatment(&config.Config{Volumes: mode, SafeVolumes: []string{vs[0].path}}, nil), "%s, %s", name, mode)
			}
		}
	}
	for _, name := range []string{"token", "config"} {
		require.Empty(t, specVolumes(&specs.Spec{Mounts: []specs.Mount{criMounts("")[name]}}), "%s is read-only", name)
	}
}

// TestSortVolumes: what is mounted decides, not what the spec says.
func TestSortVolumes(t *testing.T) {
	spec := &specs.Spec{}
	for _, m := range criMounts("") {
		spec.Mounts = append(spec.Mounts, m)
	}
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	snapshot, safe, err := sortVolumes(&config.Config{}, spec, []criu.PinnedMount{
		{Container: "/etc/hosts", Host: file}, {Container: "/cache", Host: dir}, {Container: "/data", Host: dir, ReadOnly: true},
	})
	require.NoError(t, err)
	require.Equal(t, []string{"/etc/hosts"}, safe)
	require.Len(t, snapshot, 1)
	require.Equal(t, "/cache", snapshot[0].path)

	for _, tc := range []struct {
		cfg   config.Config
		mount criu.PinnedMount
		says  string
	}{
		{config.Config{}, criu.PinnedMount{Container: "/data", Host: dir}, "writable volume /data (crsc.io/volumes: snapshot"},
		{config.Config{}, criu.PinnedMount{Container: "/cache/mounted/later", Host: dir}, "writable volume /cache/mounted/later"},
		{config.Config{Volumes: config.VolumesSnapshot}, criu.PinnedMount{Container: "/data", Host: file}, "volume /data is not a directory"},
	} {
		_, _, err := sortVolumes(&tc.cfg, spec, []criu.PinnedMount{tc.mount})
		require.ErrorIs(t, err, ErrUnprotected)
		require.ErrorContains(t, err, tc.says)
	}
}

// TestSharing: a volume that another container writes to can't be rolled back.
func TestSharing(t *testing.T) {
	all := t.TempDir()
	bundles := filepath.Join(all, "ns")
	bundle := func(name, source string, access ...string) {
		t.Helper()
		b, err := json.Marshal(&specs.Spec{Mounts: []specs.Mount{{Type: "bind", Source: source, Destination: "/x", Options: append(access, "rbind")}}})
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(bundles, name), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(bundles, name, "config.json"), b, 0o600))
	}
	bundle("self", "/v/data")
	bundle("reader", "/v/data", "ro")
	bundle("stranger", "/v/database")
	require.NoError(t, os.Mkdir(filepath.Join(bundles, "unfinished"), 0o700))
	host, err := readMountTable()
	require.NoError(t, err)
	n := neighbours{bundle: filepath.Join(bundles, "self"), volumes: []volume{{path: "/data", source: "/v/data", at: host.locate("/v/data")}}}
	require.NoError(t, n.sharing())
	require.NoError(t, n.sharing())
	for i, source := range []string{"/v/data", "/v/data/sub", "/v", "/"} {
		name := fmt.Sprint("other-", i)
		bundle(name, source)
		err := n.sharing()
		require.ErrorIs(t, err, ErrUnprotected, source)
		require.ErrorContains(t, err, "volume /data")
		require.ErrorContains(t, err, name)
		require.NoError(t, os.RemoveAll(filepath.Join(bundles, name)))
		require.NoError(t, n.sharing())
	}
	// Whoever has the volume need not be in the same namespace.
	require.NoError(t, os.WriteFile(filepath.Join(all, "no namespace"), nil, 0o600))
	for range 2 {
		bundle("../k8s.io/7f", "/v/data/sub")
		err := n.sharing()
		require.ErrorIs(t, err, ErrUnprotected)
		require.ErrorContains(t, err, "container 7f of the namespace k8s.io")
		require.NoError(t, os.RemoveAll(filepath.Join(all, "k8s.io")))
		require.NoError(t, n.sharing())
		require.NoError(t, n.sharing())
	}
	// The spec comes after the directory, whose mtime it leaves alone.
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(bundles, old, old))
	require.NoError(t, n.sharing())
	spec, err := os.ReadFile(filepath.Join(bundles, "self", "config.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(bundles, "unfinished", "config.json"), spec, 0o600))
	require.ErrorContains(t, n.sharing(), "unfinished")
}

// TestSubPaths: the kubelet binds a subPath to a path of its own, below
// volume-subpaths (pkg/volume/util/subpath).
func TestSubPaths(t *testing.T) {
	root := t.TempDir()
	pod := filepath.Join(root, "pods/0f5b")
	mount := func(source, target, kind string, flags uintptr) {
		t.Helper()
		require.NoError(t, os.MkdirAll(target, 0o700))
		require.NoError(t, unix.Mount(source, target, kind, flags, ""))
		t.Cleanup(func() { require.NoError(t, unix.Unmount(target, unix.MNT_DETACH)) })
	}
	disk, memory := filepath.Join(pod, "volumes/kubernetes.io~empty-dir/disk"), filepath.Join(pod, "volumes/kubernetes.io~empty-dir/memory")
	claim := filepath.Join(pod, "volumes/kubernetes.io~csi/pvc-1/mount")
	mount("tmpfs", memory, "tmpfs", 0)
	sub := func(name, of string) string {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Join(of, "tmp"), 0o700))
		target := filepath.Join(pod, "volume-subpaths", name, "app/0")
		mount(filepath.Join(of, "tmp"), target, "", unix.MS_BIND)
		return target
	}
	onDisk, inMemory, ofClaim := sub("disk", disk), sub("memory", memory), sub("claim", claim)
	host, err := readMountTable()
	require.NoError(t, err)
	for path, want := range map[string]bool{disk: true, memory: true, onDisk: true, inMemory: true, claim: false, ofClaim: false} {
		require.Equal(t, want, host.ofPod(path), path)
	}
	require.True(t, host.locate(disk).holds(host.locate(onDisk)), "another container may mount all of it")
	require.True(t, host.locate(memory).holds(host.locate(inMemory)))
	require.False(t, host.locate(onDisk).holds(host.locate(disk)))
	require.False(t, host.locate(disk).holds(host.locate(inMemory)))
	link := filepath.Join(root, "link")
	require.NoError(t, os.Symlink(disk, link))
	require.Equal(t, host.locate(disk), host.locate(link))
}

func TestUserOf(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	pid, err := userOf(dir)
	require.NoError(t, err)
	require.Zero(t, pid)
	sleeper := startSleeper(t, filepath.Join(dir, "open"))
	pid, err = userOf(dir)
	require.NoError(t, err)
	require.Equal(t, sleeper, pid)
}

// startSleeper starts a process that keeps a new file open.
func startSleeper(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.Stdin = f
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { require.NoError(t, cmd.Process.Kill()); _ = cmd.Wait() })
	return cmd.Process.Pid
}
