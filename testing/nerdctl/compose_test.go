package nerdctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// composeFile has a server that crashes and a client that counts with it, on one
// connection.
const composeFile = `services:
  db:
    image: %[1]s
    runtime: %[2]s
    annotations:
      crsc.io/checkpoint-restore: "true"
      crsc.io/checkpoint-interval: 500ms
  web:
    image: %[1]s
    runtime: %[2]s
    depends_on: [db]
    entrypoint: ["/bin/sh", "-c"]
    command: ["until redis-cli -h db ping; do sleep 0.1; done; while :; do echo INCR n; sleep 0.02; done | redis-cli -h db"]
`

// TestCompose: the other service does not notice that one crashes.
func TestCompose(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shop")
	require.NoError(t, os.Mkdir(dir, 0o755))
	file := filepath.Join(dir, "compose.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, composeFile, ociimage.Ref("redis"), runtime), 0o600))
	compose := func(args ...string) string {
		t.Helper()
		return host.nerdctl(t, append([]string{"compose", "-f", file}, args...)...)
	}
	t.Cleanup(func() {
		if _, err := host.try("compose", "-f", file, "down"); err != nil {
			t.Error(err)
		}
	})
	compose("up", "-d")
	find := func(service string) *container {
		name := "shop-" + service + "-1"
		return &container{t, name, host.nerdctl(t, "inspect", "-f", "{{.ID}}", name)}
	}
	db, web := find("db"), find("web")
	db.awaitProtected()
	replies := func() []string {
		lines := strings.Split(host.nerdctl(t, "logs", web.name), "\n")
		for len(lines) > 0 && lines[0] != "PONG" {
			lines = lines[1:]
		}
		return lines[min(1, len(lines)):]
	}
	for want := 20; want <= 60; want += 20 {
		require.Eventually(t, func() bool { return len(replies()) >= want }, patience, 50*time.Millisecond)
		db.crash()
	}
	last := len(replies())
	require.Eventually(t, func() bool { return len(replies()) > last+5 }, patience, 50*time.Millisecond)
	for i, line := range replies() {
		require.Equal(t, fmt.Sprint(i+1), line, "reply %d", i+1)
	}
	assert.Equal(t, "running", web.inspect("{{.State.Status}}"))
}
