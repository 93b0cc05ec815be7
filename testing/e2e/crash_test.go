package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/load"
)

// TestCrashUnderLoad is the product's promise, over IPv4 and IPv6 at once, and
// that the task lives on as if nothing had been.
func TestCrashUnderLoad(t *testing.T) {
	t.Parallel()
	c := redis(t, protected("checkpoint-interval", "500ms"))
	four := c.drive(load.Options{Connections: 20, Rate: 1500})
	six := c.drive(load.Options{Connections: 20, Rate: 1500, Target: netip.AddrPortFrom(c.pod.IP6, redisPort)})
	kept := c.dial()
	kept.do("CLIENT", "SETNAME", "kept")
	sees := kept.do("CLIENT", "INFO")
	require.Contains(t, sees, " addr="+c.pod.ClientIP4.String()+":", "Redis sees the client's own address")
	c.awaitCheckpoint()
	old, _ := c.row()
	for i := range 3 {
		time.Sleep(300 * time.Millisecond)
		r := c.crash()
		require.Zero(t, r.Differing)
		require.Zero(t, r.Reset)
		require.Equal(t, "signal 9", r.Cause)
		pid, status := c.row()
		require.Equal(t, "RUNNING", status)
		require.NotEqual(t, old, pid, "the init is a new process")
		require.Equal(t, strconv.Itoa(i+1), kept.do("INCR", "kept"))
		require.Equal(t, "kept", kept.do("CLIENT", "GETNAME"), "the same connection to Redis as well")
		old = pid
	}
	c.checkTaskCommands(old, kept)
	require.Zero(t, c.crash().Differing, "a crash after all that")
	require.Equal(t, "4", kept.do("INCR", "kept"))
	c.finish(four)
	c.finish(six)
	s := c.status()
	assert.True(t, s.Protected)
	assert.Equal(t, 4, s.RecoveryCount)
}

// checkTaskCommands uses all of ctr's task commands on a recovered task.
func (c *container) checkTaskCommands(pid int, kept *client) {
	t := c.t
	t.Helper()
	require.Contains(t, strings.Fields(c.ctr("task", "ps", c.id)), strconv.Itoa(pid))
	metrics := c.ctr("task", "metrics", c.id)
	require.Regexp(t, `memory\.usage_in_bytes\s+[1-9]|memory\.usage\s+[1-9]|memory\.current\s+[1-9]`, metrics)
	require.Equal(t, "PONG\n", c.ctr("task", "exec", "--exec-id", "plain", c.id, "redis-cli", "ping"))
	require.Contains(t, c.execInTerminal("terminal", "tty; redis-cli ping"), "/dev/pts/")

	c.ctr("task", "pause", c.id)
	_, status := c.row()
	require.Equal(t, "PAUSED", status)
	answered := make(chan string, 1)
	go func() {
		reply, _ := kept.try("ECHO", "hello")
		answered <- reply
	}()
	select {
	case reply := <-answered:
		t.Fatalf("a paused container answered %q", reply)
	case <-time.After(300 * time.Millisecond):
	}
	c.ctr("task", "resume", c.id)
	require.Equal(t, "hello", <-answered)
	// The established connections are the proxy's: unlike under runc's shim they are no
	// obstacle, though ctr has no flag for them.
	images := t.TempDir()
	c.ctr("task", "checkpoint", "--image-path", images, c.id)
	require.FileExists(t, filepath.Join(images, "inventory.img"))
	_, status = c.row()
	require.Equal(t, "RUNNING", status)
	require.Equal(t, "hello", kept.do("ECHO", "hello"))
}

// execInTerminal runs a shell command in the container, with a terminal.
func (c *container) execInTerminal(id, command string) string {
	c.t.Helper()
	cmd := c.e.Command(c.t.Context(), "script", "-qec",
		"ctr task exec -t --exec-id "+id+" "+c.id+" sh -c '"+command+"'", "/dev/null")
	out, err := cmd.CombinedOutput()
	require.NoError(c.t, err, string(out))
	return string(out)
}

// TestCtrCheckpointAfterRecovery: ctr's own checkpoint of a recovered task.
func TestCtrCheckpointAfterRecovery(t *testing.T) {
	t.Parallel()
	// CRIU would lock the network with iptables, which need not be installed.
	config := filepath.Join(t.TempDir(), "criu.conf")
	require.NoError(t, os.WriteFile(config, []byte("network-lock skip\n"), 0o600))
	a := protected("checkpoint-interval", "300ms")
	a["org.criu.config"] = config
	c := newContainer(t).run("busybox", a, nil, "sleep", "1000")
	c.awaitCheckpoint()
	c.crash()
	dir := t.TempDir()
	c.ctr("task", "checkpoint", "--image-path", dir, c.id)
	require.FileExists(t, filepath.Join(dir, "inventory.img"))
	_, status := c.row()
	require.Equal(t, "RUNNING", status)
	c.awaitCheckpoint()
	c.crash()
}

// TestCtrCheckpointIsOurs: containerd's own request makes a checkpoint that the container is
// recovered from, and goes well with a client that is connected.
func TestCtrCheckpointIsOurs(t *testing.T) {
	t.Parallel()
	c := redis(t, noTriggers())
	k := c.dial()
	k.do("SET", "text", "kept")
	c.ctr("task", "checkpoint", "--image-path", t.TempDir(), c.id)
	var last *status.Checkpoint
	require.Eventually(t, func() bool {
		last = c.status().Checkpoints.Last
		return last != nil
	}, patience, 20*time.Millisecond, "no checkpoint of ours")
	require.Equal(t, "task checkpoint", last.Cause)
	require.Equal(t, 1, last.Connections)
	k.do("APPEND", "text", " more")
	r := c.crash()
	require.Equal(t, last.Sequence, r.Checkpoint)
	require.Equal(t, "kept more", k.do("GET", "text"))
}

// TestColdStart: a crash before the first checkpoint.
func TestColdStart(t *testing.T) {
	t.Parallel()
	c := redis(t, noTriggers())
	l := c.drive(load.Options{Connections: 5, Rate: 500})
	k := c.dial()
	for range 100 {
		k.do("APPEND", "text", "x")
	}
	require.Zero(t, c.status().Checkpoints.Count)
	for i := range 3 {
		r := c.crash()
		if i == 0 { // a checkpoint follows each recovery soon
			require.Zero(t, r.Checkpoint, "from the start of the container")
		}
		require.Zero(t, r.Differing)
		require.Equal(t, strconv.Itoa(100+i), k.do("STRLEN", "text"))
		k.do("APPEND", "text", "x")
	}
	c.finish(l)
}

// TestManyConnections: 500 clients, and clients that come and go.
func TestManyConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: loads the machine for half a minute")
	}
	for name, o := range map[string]load.Options{
		"500":           {Connections: 500, Rate: 5000},
		"come and go":   {Connections: 30, Rate: 3000, ReconnectEvery: 10},
		"pipelines":     {Connections: 10, Rate: 10000, Pipeline: 16},
		"full throttle": {Connections: 50},
	} {
		t.Run(name, func(t *testing.T) {
			c := redis(t, protected("checkpoint-interval", "1s"))
			l := c.drive(o)
			c.awaitCheckpoint()
			for range 3 {
				time.Sleep(700 * time.Millisecond)
				require.Zero(t, c.crash().Differing)
			}
			time.Sleep(200 * time.Millisecond)
			c.finish(l)
		})
	}
}

// TestOrders: both sources of the order give the replies on shared keys again.
func TestOrders(t *testing.T) {
	for _, order := range []string{"tracepoint", "serial"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			c := redis(t, protected("order", order, "checkpoint-interval", "1s"))
			l := c.drive(load.Options{Connections: 20, Rate: 4000})
			c.awaitCheckpoint()
			records := 0
			for range 3 {
				time.Sleep(500 * time.Millisecond)
				r := c.crash()
				require.Zero(t, r.Differing)
				require.Zero(t, r.Reset)
				records += r.Records
			}
			require.NotZero(t, records, "nothing was replayed")
			require.Equal(t, order, c.status().Order)
			c.finish(l)
		})
	}
}

// TestSignals: the ways to die that nobody asked for.
func TestSignals(t *testing.T) {
	t.Parallel()
	c := runApp(t, protected("checkpoint-interval", "500ms"))
	k := c.dialApp()
	n := 0
	for sig, cause := range deaths() {
		require.Equal(t, strconv.Itoa(n+1), k.ask("add"))
		n++
		r := c.crashBy(func() { c.signalInit(sig) })
		require.Equal(t, cause, r.Cause)
	}
	require.Equal(t, strconv.Itoa(n+1), k.ask("add"))
}

// TestWrapper: the child of a shell dies, and the shell after it.
func TestWrapper(t *testing.T) {
	t.Parallel()
	c := newContainer(t).run("redis", protected("checkpoint-interval", "500ms"), nil, "sh", "-c",
		`redis-server --save "" --protected-mode no --bind "*"; exit $?`)
	l := c.driveWhenReady(load.Options{Connections: 10, Rate: 1000})
	c.awaitCheckpoint()
	for range 5 {
		time.Sleep(200 * time.Millisecond)
		child := c.onlyChild()
		c.crashBy(func() { kill(t, child) })
	}
	c.finish(l)
}

// TestManyProcesses: a server of several processes, one of which dies together
// with the others or alone.
func TestManyProcesses(t *testing.T) {
	t.Parallel()
	// Workers of another user could be dumped only with CAP_SYS_RESOURCE.
	c := newContainer(t).run("nginx", protected("checkpoint-interval", "500ms"), nil, "sh", "-c",
		"sed 's/^user.*/user root root;/' /etc/crsc-nginx.conf >/tmp/n.conf; exec nginx -e stderr -c /tmp/n.conf")
	k := c.connect(netip.AddrPortFrom(c.pod.IP4, 80))
	get := func() {
		t.Helper()
		require.Equal(t, "crsc\n", k.httpGet("/index.html"))
	}
	for range 3 {
		get()
		// nginx dates its replies: one that is made again differs, and costs the
		// connection (TestDivergence). There is none after the checkpoint.
		c.awaitCheckpoint()
		c.crash()
		get()
		require.Len(t, c.children(), 2, "master and two workers")
	}
	require.True(t, c.status().Protected)
}

// TestDivergence: a reply that comes out differently when it is made again
// costs the connection that got it, and no other.
func TestDivergence(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]annotations{
		"checkpoint": protected("checkpoint-interval", "1m"),
		"cold start": noTriggers(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := redis(t, a)
			other, victim := c.dial(), c.dial()
			if name == "checkpoint" {
				// What an exec does cannot be replayed: a checkpoint follows.
				c.checkpointAfter(func() { c.ctr("task", "exec", "--exec-id", "x", c.id, "true") })
			}
			require.Equal(t, "1", other.do("INCR", "n"))
			require.Contains(t, victim.do("INFO", "server"), "server_time_usec:")
			require.Equal(t, "2", other.do("INCR", "n"))
			r := c.crash()
			require.Equal(t, 1, r.Reset)
			require.Equal(t, name == "checkpoint", r.Checkpoint > 0)
			require.Equal(t, "3", other.do("INCR", "n"))
			_, err := victim.try("PING")
			require.Error(t, err, "a connection that was given another answer must not live on")
			require.Equal(t, "4", c.dial().do("INCR", "n"))
			c.awaitCheckpoint()
			require.Zero(t, c.crash().Reset, "a crash after that")
			require.Equal(t, "5", other.do("INCR", "n"))
		})
	}
}
