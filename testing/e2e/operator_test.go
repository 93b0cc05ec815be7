package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/control"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
)

// crsc runs the operator's command line.
func (c *container) crsc(args ...string) string {
	c.t.Helper()
	out, err := c.e.Command(c.t.Context(), "crsc", args...).CombinedOutput()
	require.NoError(c.t, err, "crsc %s: %s", strings.Join(args, " "), out)
	return string(out)
}

// checkpointNow makes a checkpoint with its image.
func (c *container) checkpointNow() (m control.Made) {
	c.t.Helper()
	require.NoError(c.t, json.Unmarshal([]byte(c.crsc("checkpoint", "--image", "--json", c.id)), &m))
	return m
}

// TestOperator: checkpoints on demand, and what stays of them.
func TestOperator(t *testing.T) {
	t.Parallel()
	c := redis(t, noTriggers("publish", "true", "publish-keep", "1"))
	c.removeImages()
	k := c.dial()
	require.Equal(t, "1", k.do("INCR", "n"))
	require.Regexp(t, `^checkpoint \d+: frozen \d+\.\d ms, \d+\.\d ms in all, 1 connections\n$`, c.crsc("checkpoint", c.id))
	pinned := c.checkpointNow()
	require.Positive(t, pinned.Checkpoint.FrozenMS)
	require.Equal(t, "operator", pinned.Checkpoint.Cause)
	require.Equal(t, pinned.Checkpoint.Sequence, pinned.Image.Sequence)
	sequence := strconv.FormatUint(pinned.Checkpoint.Sequence, 10)
	c.crsc("pin", c.id, sequence)
	require.Equal(t, "2", k.do("INCR", "n"))
	gone := c.checkpointNow()
	last := c.checkpointNow()

	list := c.crsc("checkpoints", c.id)
	require.Regexp(t, `(?m)^ +`+sequence+` .*`+pinned.Image.Name+` .* pinned`, list)
	require.Contains(t, list, last.Image.Name)
	require.NotContains(t, list, gone.Image.Name)
	require.Regexp(t, `(?m)^ +`+strconv.FormatUint(last.Checkpoint.Sequence, 10)+` .* operator `, list, "what a recovery can begin with")

	c.collectGarbage()
	content := c.ctr("content", "ls", "-q")
	for _, i := range []control.Made{pinned, last} {
		require.Contains(t, content, i.Image.Digest)
		c.fetchImage(i.Image.Name) // complete, whatever layers the one removed shared with it
	}
	require.NotContains(t, content, gone.Image.Digest, "no lease keeps what retention has removed")
	c.requireNoLease()

	c.crsc("unpin", c.id, sequence)
	c.checkpointNow()
	c.collectGarbage()
	require.NotContains(t, c.ctr("content", "ls", "-q"), pinned.Image.Digest)

	require.Zero(t, c.crash().Differing)
	require.Equal(t, "3", k.do("INCR", "n"))
	require.Contains(t, c.crsc("ps"), c.id)

	c.ctr("task", "pause", c.id)
	for what, args := range map[string][]string{
		"no such container": {"checkpoint", "nobody"},
		"no image of this":  {"pin", c.id, "12345"},
		"not the number":    {"pin", c.id, "one"},
		"it is paused":      {"checkpoint", c.id},
		"not made within":   {"checkpoint", "--timeout", "1ns", c.id},
	} {
		out, err := c.e.Command(t.Context(), "crsc", args...).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), what)
	}
	c.ctr("task", "resume", c.id)
	c.ctr("task", "kill", "-s", "SIGKILL", c.id)
	c.awaitExit(promptly)
	c.await("the end", func(s *status.Status) bool { return s.Phase == "stopped" })
	out, err := c.e.Command(t.Context(), "crsc", "checkpoint", c.id).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "the container does not run")
}

// requireNoLease: the container's publisher holds nothing back.
func (c *container) requireNoLease() {
	c.t.Helper()
	sum := sha256.Sum256([]byte(c.e.Namespace + "/" + c.id)) // see oci/name.go
	require.NotContains(c.t, c.ctr("leases", "ls", "-q"), hex.EncodeToString(sum[:8]))
}

// collectGarbage makes the daemon remove what no image and no lease needs.
func (c *container) collectGarbage() {
	c.t.Helper()
	c.ctr("images", "tag", oci.Name(c.e.Namespace, c.id, oci.Latest), "gc-"+c.id)
	c.ctr("images", "rm", "--sync", "gc-"+c.id)
}

// TestFarewellImage: the checkpoint before a stop is an image by the time the
// task has been removed.
func TestFarewellImage(t *testing.T) {
	t.Parallel()
	c := redis(t, noTriggers("publish", "true", "checkpoint-on-stop", "true"))
	c.removeImages()
	k := c.dial()
	require.Equal(t, "OK", k.do("SET", "last", "words"))
	c.ctr("task", "kill", "-s", "SIGTERM", c.id)
	c.awaitExit(3 * promptly)
	c.ctr("task", "rm", c.id)
	require.NoDirExists(t, c.stateDir())
	latest := oci.Name(c.e.Namespace, c.id, oci.Latest)
	require.Contains(t, c.ctr("images", "ls", "-q"), latest)
	c.fetchImage(latest)
	c.requireNoLease()
}

// TestOperatorUnprotected: the reason is the answer.
func TestOperatorUnprotected(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newContainer(t).run("busybox", protected(), []string{bind(dir, "/vol", "rw")}, "sleep", "1000")
	out, err := c.e.Command(t.Context(), "crsc", "checkpoint", c.id).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "unprotected: writable volume /vol")
	require.NotContains(t, string(out), "unprotected: unprotected")
	require.Regexp(t, c.id+` .*writable volume /vol`, c.crsc("ps"))
}

// TestTaskCheckpoint: containerd's own checkpoints and those of the schedule
// take turns.
func TestTaskCheckpoint(t *testing.T) {
	t.Parallel()
	// CRIU would lock the network with iptables, which need not be installed.
	config := filepath.Join(t.TempDir(), "criu.conf")
	require.NoError(t, os.WriteFile(config, []byte("network-lock skip\n"), 0o600))
	a := protected("checkpoint-interval", "200ms")
	a["org.criu.config"] = config
	c := newContainer(t).run("busybox", a, nil, "sleep", "1000")
	for range 2 {
		time.Sleep(time.Second) // the name of ctr's image ends with the second
		dir := t.TempDir()
		c.ctr("task", "checkpoint", "--image-path", dir, c.id)
		require.FileExists(t, filepath.Join(dir, "inventory.img"))
		c.awaitCheckpoint()
	}
	require.Zero(t, c.status().Checkpoints.Failed, c.status().Checkpoints.LastError)
	c.crash()
}
