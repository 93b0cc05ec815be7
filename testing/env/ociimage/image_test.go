package ociimage

import (
	"bytes"
	"context"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"

	"github.com/crsc-io/crsc/testing/env"
)

func TestArchiveIsReproducible(t *testing.T) {
	for _, name := range []string{"busybox", "redis"} {
		r, err := lookup(name)
		require.NoError(t, err)
		var sums []string
		var bytesOf [2]bytes.Buffer
		for i := range 2 {
			tree, err := build(r)
			require.NoError(t, err)
			d, err := archive(&bytesOf[i], Ref(name), r, tree)
			require.NoError(t, err)
			sums = append(sums, d.String())
		}
		assert.Equal(t, sums[0], sums[1])
		assert.True(t, bytes.Equal(bytesOf[0].Bytes(), bytesOf[1].Bytes()))
	}
}

func TestUnknownImageNamesTheKnownOnes(t *testing.T) {
	_, err := lookup("mysql")
	require.ErrorIs(t, err, ErrUnknown)
	assert.ErrorContains(t, err, "redis")
}

func TestMissingPackageNamesTheRemedy(t *testing.T) {
	_, err := build(recipe{packages: []string{"no-such-package"}})
	assert.ErrorContains(t, err, "testing/env/install deb no-such-package")
}

func TestRecipesAreDistinctAndComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range recipes() {
		assert.False(t, seen[r.name], r.name)
		seen[r.name] = true
		assert.NotEmpty(t, r.entrypoint, r.name)
		assert.True(t, strings.HasPrefix(r.workDir, "/"), r.name)
		assert.Regexp(t, `^\d+:\d+$`, r.user, r.name)
	}
}

// TestRedisImageRuns runs the image with the stock shim, and talks to it from
// the clients' namespace over both families.
func TestRedisImageRuns(t *testing.T) {
	e := env.Require(t)
	ctx := context.Background()
	ref, err := Import(ctx, e, "redis")
	require.NoError(t, err)
	again, err := Import(ctx, e, "redis")
	require.NoError(t, err)
	assert.Equal(t, ref, again)

	pod, id := e.NewPod(t), env.UniqueName(t)
	require.NoError(t, e.Run(ctx, env.Container{ID: id, Image: ref, Runtime: env.RuntimeRunc, Netns: pod.Path}))
	e.RemoveContainer(t, id)
	assert.Contains(t, e.MustCtr(t, "task", "exec", "--exec-id", "x", id, "/bin/sh", "-c", "id; touch /data/x && echo writable"), "writable")
	for _, addr := range []string{pod.IP4.String(), pod.IP6.String()} {
		assert.Equal(t, "+PONG\r\n", ping(t, e.Client().Path, net.JoinHostPort(addr, "6379")))
	}
}

// ping asks until the server listens.
func ping(t *testing.T, netnsPath, addr string) string {
	t.Helper()
	runtime.LockOSThread() // the thread is thrown away with the test's goroutine
	h, err := netns.GetFromPath(netnsPath)
	require.NoError(t, err)
	defer h.Close()
	require.NoError(t, netns.Set(h))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			require.Less(t, time.Now(), deadline, err)
			continue
		}
		defer c.Close()
		_, err = c.Write([]byte("PING\r\n"))
		require.NoError(t, err)
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
}
