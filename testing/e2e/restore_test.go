package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// elsewhere is a second machine: another daemon with a store and a node file of
// its own. It has the base images and nothing else.
func elsewhere(t testing.TB, name string) *env.Env {
	t.Helper()
	e := env.RequireInstance(t, name)
	for _, image := range []string{"redis", "busybox"} {
		_, err := ociimage.Import(t.Context(), e, image)
		require.NoError(t, err)
	}
	return e
}

// configure adds to the node file of a machine.
func configure(t testing.TB, e *env.Env, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(e.Dir, "config.toml"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("\n" + text + "\n")
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func publicKey(e *env.Env) string { return filepath.Join(e.StateDir, ".keys", "signing.pem.pub") }

// carry copies images from a container's machine to another.
func (c *container) carry(to *env.Env, names ...string) {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "images.tar")
	c.ctr(append([]string{"images", "export", "--local", file}, names...)...)
	to.MustCtr(c.t, "images", "import", "--no-unpack", file)
}

// TestRestoreElsewhere: a container goes on from an image on a machine that has
// nothing else of it, and what does not fit is refused there.
func TestRestoreElsewhere(t *testing.T) {
	t.Parallel()
	c := redis(t, noTriggers("publish", "true"))
	c.removeImages()
	k := c.dial()
	require.Equal(t, "OK", k.do("SET", "kept", "first"))
	c.exec("echo hello >/etc/greeting; echo there >/dev/shm/note")
	first := c.awaitImages(1).Images.Last
	require.Equal(t, "OK", k.do("SET", "kept", "second"))
	c.exec("true")
	last := c.awaitImages(1).Images.Last
	latest := oci.Name(c.e.Namespace, c.id, oci.Latest)

	there := elsewhere(t, "e2eother")
	c.carry(there, first.Name, last.Name, latest)
	c.refusals(there, latest)
	configure(t, there, fmt.Sprintf("[images]\ntrusted_keys = [%q]", publicKey(c.e)))
	require.NoError(t, c.e.DeleteContainer(t.Context(), c.id))

	n := newContainerOn(t, there).run("redis", protected("restore-from", latest, "checkpoint-interval", "off"), nil)
	s := n.awaitNumber(last.Sequence + 1)
	require.Equal(t, latest+"@"+last.Digest, s.RestoredFrom)
	k = n.dial()
	require.Equal(t, "second", k.do("GET", "kept"))
	require.Equal(t, "0", k.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"), "the connections of the other place are gone")
	require.Equal(t, "hello", n.exec("cat /etc/greeting"))
	require.Equal(t, "there", n.exec("cat /dev/shm/note"))
	require.Equal(t, "OK", k.do("SET", "kept", "third"))
	require.NotZero(t, n.crash().Checkpoint)
	require.Equal(t, "third", k.do("GET", "kept"), "the same connection")

	there.MustCtr(t, "content", "prune", "references")
	require.Contains(t, verify(t, there, last.Name), "good: checkpoint 2")
	damage(t, there, last.Digest)
	require.Contains(t, verify(t, there, last.Name), "damaged")
	err := newContainerOn(t, there).tryRun("redis", protected("restore-from", last.Name), nil)
	require.ErrorContains(t, err, oci.ErrCorrupt.Error())
	n = newContainerOn(t, there).run("redis", protected("restore-from", latest), nil)
	require.Equal(t, "first", n.dial().do("GET", "kept"))
	require.Equal(t, first.Name+"@"+first.Digest, n.status().RestoredFrom, "the one before")
}

// refusals: each for one reason, in one line, and nothing stays.
func (c *container) refusals(there *env.Env, image string) {
	for _, r := range []struct {
		says, base, from string
		flags            []string
	}{
		{oci.ErrUntrusted.Error(), "redis", image, nil},
		{"not found", "redis", "crsc.local/crsc/none:7", nil},
		{oci.ErrNotCheckpoint.Error(), "redis", ociimage.Ref("redis"), nil},
	} {
		c.refused(there, r.says, r.base, r.from, r.flags)
	}
	node := filepath.Join(there.Dir, "config.toml")
	before, err := os.ReadFile(node)
	require.NoError(c.t, err)
	configure(c.t, there, "[images]\nallow_unsigned = true")
	defer func() { require.NoError(c.t, os.WriteFile(node, before, 0o600)) }()
	dir := c.t.TempDir()
	c.refused(there, "one of", "busybox", image, nil)
	c.refused(there, "mounts", "redis", image, []string{"--mount=type=bind,src=" + dir + ",dst=/mnt,options=rbind:ro"})
	c.refused(there, "CAP_KILL", "redis", image, []string{"--cap-drop", "CAP_KILL"})
	c.refused(there, "seccomp", "redis", image, []string{"--seccomp"})
	c.refused(there, "run as user 0", "redis", image, []string{"--user", "999"})
	c.refused(there, "writable volume /mnt", "redis", image, []string{"--mount=type=bind,src=" + dir + ",dst=/mnt,options=rbind:rw"})
}

func (c *container) refused(there *env.Env, says, base, image string, flags []string) {
	c.t.Helper()
	n := newContainerOn(c.t, there)
	err := n.tryRun(base, protected("restore-from", image), flags)
	require.ErrorContains(c.t, err, says)
	require.ErrorContains(c.t, err, "crsc.io/restore-from")
	_, _, err = there.Task(context.Background(), n.id)
	require.Error(c.t, err, "there is no task")
	require.NoDirExists(c.t, n.stateDir())
}

// TestRestoreEncrypted: images that only the machine's own key opens.
func TestRestoreEncrypted(t *testing.T) {
	t.Parallel()
	e := elsewhere(t, "e2esealed")
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	key := filepath.Join(e.Dir, "age.key")
	require.NoError(t, os.WriteFile(key, []byte(id.String()+"\n"), 0o600))
	configure(t, e, fmt.Sprintf("[images]\nencrypt_for = [%q]", id.Recipient()))
	// As confined as can be: that comes back too.
	flags := []string{"--seccomp", "--user", "999:1000", "--read-only"}
	c := newContainerOn(t, e).run("redis", noTriggers("publish", "true"), flags)
	require.Equal(t, "OK", c.dial().do("SET", "secret", "a needle in the haystack"))
	before := confinement(t, c.initPid())
	c.exec("true")
	image := c.awaitImages(1).Images.Last
	for _, b := range blobs(t, e, image.Digest) {
		require.NotContains(t, string(b), "needle")
	}
	require.NoError(t, e.DeleteContainer(t.Context(), c.id))
	c.refused(e, oci.ErrUnreadable.Error(), "redis", image.Name, flags)
	configure(t, e, fmt.Sprintf("identity_file = %q", key))
	n := newContainerOn(t, e).run("redis", protected("restore-from", image.Name), flags)
	require.Equal(t, before, confinement(t, n.initPid()))
	require.Equal(t, "a needle in the haystack", n.dial().do("GET", "secret"))
}

// exec runs a shell in the container and returns what it prints, without the
// last line's end.
func (c *container) exec(script string) string {
	c.t.Helper()
	out := c.ctr("task", "exec", "--exec-id", "x"+strconv.FormatInt(time.Now().UnixNano(), 36), c.id, "sh", "-c", script)
	for len(out) > 0 && out[len(out)-1] == '\n' {
		out = out[:len(out)-1]
	}
	return out
}

// awaitNumber waits for a checkpoint with that number, or a later one.
func (c *container) awaitNumber(seq uint64) *status.Status {
	c.t.Helper()
	return c.await("checkpoint "+oci.Tag(seq), func(s *status.Status) bool {
		return s.Checkpoints.Last != nil && s.Checkpoints.Last.Sequence >= seq
	})
}

// verify runs crsc image verify on a machine and returns what it says.
func verify(t testing.TB, e *env.Env, name string) string {
	t.Helper()
	out, err := e.Command(t.Context(), "crsc", "image", "verify", name).CombinedOutput()
	if err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 2, exit.ExitCode(), string(out))
	}
	return string(out)
}

// blobs returns the manifest of an image and its layers.
func blobs(t testing.TB, e *env.Env, image string) (all map[string][]byte) {
	t.Helper()
	all = map[string][]byte{}
	var m ocispec.Manifest
	require.NoError(t, json.Unmarshal(blob(t, e, image), &m))
	all[image] = blob(t, e, image)
	for _, l := range m.Layers {
		all[l.Digest.String()] = blob(t, e, l.Digest.String())
	}
	return all
}

func blobFile(e *env.Env, digest string) string {
	_, name, _ := strings.Cut(digest, ":")
	return filepath.Join(e.Dir, "root", "io.containerd.content.v1.content", "blobs", "sha256", name)
}

func blob(t testing.TB, e *env.Env, digest string) []byte {
	t.Helper()
	b, err := os.ReadFile(blobFile(e, digest))
	require.NoError(t, err)
	return b
}

// damage flips a bit in the standard layer of an image, on the disk.
func damage(t testing.TB, e *env.Env, image string) {
	t.Helper()
	var m ocispec.Manifest
	require.NoError(t, json.Unmarshal(blob(t, e, image), &m))
	for _, l := range m.Layers {
		if l.Annotations["crsc.io/role"] == "checkpoint" {
			b := blob(t, e, l.Digest.String())
			b[len(b)/2] ^= 4
			require.NoError(t, os.Remove(blobFile(e, l.Digest.String())))
			require.NoError(t, os.WriteFile(blobFile(e, l.Digest.String()), b, 0o600))
			return
		}
	}
	require.Fail(t, "the image has no standard layer")
}
