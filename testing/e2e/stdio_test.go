package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// buffer may be read while a process writes to it.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// added is what the test application has written after n additions.
func added(from, n int) string {
	var b strings.Builder
	for i := from; i <= n; i++ {
		fmt.Fprintf(&b, "added %d\n", i)
	}
	return b.String()
}

// addAndCrash lets the application write lines before and after crashes, some
// of them after the last checkpoint, so that they are written again.
func (c *container) addAndCrash(k *client, checkpoints bool, crashes int) (last int) {
	c.t.Helper()
	n := 0
	add := func() {
		n++
		require.Equal(c.t, strconv.Itoa(n), k.ask("add"))
	}
	for range crashes {
		add()
		if checkpoints {
			c.awaitCheckpoint()
		}
		for range 5 {
			add()
		}
		c.crash()
		add()
	}
	return n
}

func requireOutput(t *testing.T, want string, read func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); read() != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			require.Equal(t, want, read())
		}
	}
	time.Sleep(100 * time.Millisecond)
	require.Equal(t, want, read(), "nothing comes later")
}

// TestLogFile: each line is in the log once, in order.
func TestLogFile(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]annotations{
		"checkpoints": protected("checkpoint-interval", "300ms"),
		"cold start":  noTriggers(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := runApp(t, a)
			n := c.addAndCrash(c.dialApp(), name == "checkpoints", 4)
			requireOutput(t, added(1, n), c.log)
		})
	}
}

// TestAttached: the same for who looks at the output, by `ctr run` and by
// `ctr task attach`, over fifos.
func TestAttached(t *testing.T) {
	t.Parallel()
	for name, detach := range map[string]bool{"run": false, "attach": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newContainer(t)
			args := []string{"run", "--runtime", "io.containerd.crsc.v1", "--with-ns", "network:" + c.pod.Path, c.mountApp()}
			for k, v := range protected("checkpoint-interval", "300ms") {
				args = append(args, "--annotation", k+"="+v)
			}
			if detach {
				args = append(args, "--detach")
			}
			args = append(args, ociimage.Ref("busybox"), c.id, "/app")
			if detach {
				c.ctr(args...)
				args = []string{"task", "attach", c.id}
			}
			var out buffer
			watcher := c.e.Command(context.Background(), "ctr", args...)
			watcher.Stdout = &out
			require.NoError(t, watcher.Start())
			defer watcher.Process.Kill()
			k := c.dialApp()
			n := c.addAndCrash(k, true, 4)
			requireOutput(t, added(1, n), out.String)
			c.ctr("task", "kill", "-s", "SIGTERM", c.id)
			var exit *exec.ExitError
			require.ErrorAs(t, watcher.Wait(), &exit)
			require.Equal(t, 143, exit.ExitCode(), out.String())
		})
	}
}
