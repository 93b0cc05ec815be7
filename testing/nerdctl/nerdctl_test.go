package nerdctl

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/status"
)

// network is what nerdctl's hooks have set up, as one text.
func network(t testing.TB) string {
	t.Helper()
	rules, err := exec.Command("iptables-save", "-t", "nat").Output()
	require.NoError(t, err)
	var out strings.Builder
	for line := range strings.Lines(string(rules)) {
		// The plugin leaves the two rules that mark and masquerade for all ports.
		if strings.HasPrefix(line, "-A CNI-") && !strings.HasPrefix(line, "-A CNI-HOSTPORT-MASQ") && !strings.HasPrefix(line, "-A CNI-HOSTPORT-SETMARK") {
			out.WriteString(line)
		}
	}
	leases, err := filepath.Glob("/var/lib/cni/networks/bridge/[0-9]*")
	require.NoError(t, err)
	fmt.Fprintln(&out, leases)
	return out.String()
}

// TestPublishedPort: a client of a published port keeps its connection, exec
// works before and after, the hooks do not run again, and nothing stays.
func TestPublishedPort(t *testing.T) {
	empty := network(t)
	c := run(t, "port", append(protect(), "-p", "127.0.0.1:16379:6379"), "redis")
	c.awaitProtected()
	k := dial(t, "127.0.0.1:16379")
	before := network(t)
	require.NotEqual(t, empty, before)
	address := c.inspect("{{.NetworkSettings.IPAddress}}")
	n := 0
	for range 3 {
		for range 20 {
			n++
			require.Equal(t, fmt.Sprintf(":%d", n), k.do("INCR n"))
		}
		require.Equal(t, "PONG", host.nerdctl(t, "exec", c.name, "redis-cli", "ping"))
		c.crash()
		require.Equal(t, fmt.Sprintf("%d", n), host.nerdctl(t, "exec", c.name, "redis-cli", "get", "n"))
	}
	require.Equal(t, "+PONG", dial(t, "127.0.0.1:16379").do("PING"), "a new connection")
	assert.Equal(t, before, network(t))
	assert.Equal(t, address, c.inspect("{{.NetworkSettings.IPAddress}}"))
	assert.Equal(t, "running", c.inspect("{{.State.Status}}"))

	host.nerdctl(t, "stop", c.name)
	assert.Equal(t, "exited", c.inspect("{{.State.Status}}"))
	host.nerdctl(t, "rm", c.name)
	assert.Equal(t, empty, network(t))
	_, err := os.Stat(filepath.Join(host.state, "default", c.id))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// TestLogsFollow: who follows the log across crashes sees each line once.
func TestLogsFollow(t *testing.T) {
	c := run(t, "logs", protect(), "busybox", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	follow := host.command(ctx, "logs", "-f", c.name)
	pipe, err := follow.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, follow.Start())
	c.awaitProtected()
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		c.crash()
	}
	time.Sleep(200 * time.Millisecond)
	// A graceful end would have the shell write to the end; this one is at once.
	host.nerdctl(t, "stop", "-t", "1", c.name)
	lines := 0
	for s := bufio.NewScanner(pipe); s.Scan(); {
		lines++
		require.Equal(t, fmt.Sprintf("line %d", lines), s.Text())
	}
	require.NoError(t, follow.Wait())
	assert.Greater(t, lines, 10)
	all := strings.Split(host.nerdctl(t, "logs", c.name), "\n")
	assert.Len(t, all, lines)
}

// TestRestartAlways: within the budget a crash is hidden; beyond it the exit is
// reported, and containerd's monitor starts the container again. That begins anew,
// as everything does whose network goes with it, and is protected like the first.
func TestRestartAlways(t *testing.T) {
	empty := network(t)
	c := run(t, "always", append(protect("recovery-budget=1/1h"), "--restart=always", "-p", "127.0.0.1:16380:6379"), "redis")
	c.awaitProtected()
	k := dial(t, "127.0.0.1:16380")
	require.Equal(t, ":1", k.do("INCR n"))
	c.crash()
	require.Equal(t, ":2", k.do("INCR n"))
	shim := c.await("its shim", func(s *status.Status) bool { return s.ShimPid > 0 }).ShimPid
	c.kill()
	s := c.await("another shim", func(s *status.Status) bool { return s.ShimPid != shim && s.Phase == "running" && s.Pid > 0 })
	require.NoError(t, unix.Kill(s.Pid, 0))
	require.Equal(t, ":1", dial(t, "127.0.0.1:16380").do("INCR n"))
	c.awaitProtected()
	k = dial(t, "127.0.0.1:16380")
	require.Equal(t, ":2", k.do("INCR n"))
	c.crash()
	require.Equal(t, ":3", k.do("INCR n"))
	// Not stop: with the policy "always" containerd's monitor starts also what
	// was stopped on purpose.
	host.nerdctl(t, "rm", "-f", c.name)
	assert.Equal(t, empty, network(t))
}

// TestPublishedDatagrams: a published UDP port is the container's before and after
// a crash. The application takes one datagram at a time and answers with its count.
func TestPublishedDatagrams(t *testing.T) {
	compare(t, func(t *testing.T, s side) []string {
		c := run(t, "datagrams", append(s.flags, "-p", "127.0.0.1:15353:5353/udp"), "python", "-c", countDatagrams)
		conn, err := net.Dial("udp", "127.0.0.1:15353")
		require.NoError(t, err)
		defer conn.Close()
		n := &notes{t: t}
		n.add("first: %d", ask(t, conn))
		s.crash(c)
		n.add("second: %d", ask(t, conn))
		s.crash(c)
		n.add("third: %d", ask(t, conn))
		n.ran("port", c.name)
		return n.lines
	})
}

const countDatagrams = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5353))
seen = []
while True:
    data, peer = s.recvfrom(100)
    if data not in seen:
        seen.append(data)
    s.sendto(b"%s is %d" % (data, 1 + seen.index(data)), peer)
`

// ask sends a datagram, again and again until it is answered.
func ask(t testing.TB, conn net.Conn) int {
	t.Helper()
	question := fmt.Sprint(time.Now().UnixNano())
	for deadline := time.Now().Add(patience); ; {
		require.True(t, time.Now().Before(deadline), "no answer")
		_, err := fmt.Fprint(conn, question)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		answer := make([]byte, 100)
		var n, got int
		if err == nil { // ECONNREFUSED: of a datagram before
			n, err = conn.Read(answer)
		}
		if err == nil {
			if _, err = fmt.Sscanf(string(answer[:n]), question+" is %d", &got); err == nil {
				return got
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}
