package netproxy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// rig is a proxied Redis in a namespace of its own. Without CRIU, a recovery
// is a fresh start and the whole journal.
type rig struct {
	t           testing.TB
	app, client int
	journal     *journal.Journal
	proxy       *Proxy
	redis       *exec.Cmd
	dead        atomic.Uint32
	dir         string
	death       Dying            // what kill makes known
	command     func() *exec.Cmd // instead of Redis
}

func newRig(t testing.TB, kind order.Kind, exclude ...uint16) *rig {
	t.Helper()
	return newRigIn(t, kind, journal.Options{}, exclude...)
}

// newRigIn is newRig with a journal of the given options.
func newRigIn(t testing.TB, kind order.Kind, o journal.Options, exclude ...uint16) *rig {
	t.Helper()
	return newRigWith(t, kind, o, func(o *Options) { o.ExcludePorts = exclude })
}

// newRigWith edits the options of the proxy.
func newRigWith(t testing.TB, kind order.Kind, jo journal.Options, edit func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), death: InitDying}
	r.app, r.client = nstest.Pair(t)
	var err error
	jo.Dir = filepath.Join(r.dir, "journal")
	r.journal, err = journal.Open(jo)
	require.NoError(t, err)
	log := logrus.New()
	log.SetOutput(testWriter{t})
	o := Options{
		NetNS: r.app, Name: "test", Journal: r.journal, Order: kind,
		Dying: r.dying, Log: logrus.NewEntry(log),
		OnFault: func(err error) { t.Errorf("journal fault: %v", err) },
	}
	edit(&o)
	r.proxy, err = New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		r.kill()
		require.NoError(t, r.proxy.Close())
		require.NoError(t, r.journal.Close())
	})
	return r
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Helper()
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (r *rig) dying() Dying { return Dying(r.dead.Load()) }

// start runs redis-server in the application's namespace.
func (r *rig) start() {
	r.t.Helper()
	path, err := exec.LookPath("redis-server")
	require.NoError(r.t, err, "redis-server is missing; run testing/env/install")
	r.redis = exec.Command(path, "--save", "", "--appendonly", "no", "--protected-mode", "no", "--bind", "*", "-::*", "--dir", r.dir)
	if r.command != nil {
		r.redis = r.command()
	}
	require.NoError(r.t, netns.Do(r.app, r.redis.Start))
	r.dead.Store(uint32(Alive))
}

// kill ends the application with SIGKILL, as a crash.
func (r *rig) kill() {
	if r.redis == nil {
		return
	}
	r.dead.Store(uint32(r.death))
	_ = r.redis.Process.Signal(syscall.SIGKILL)
	_ = r.redis.Wait()
	r.redis = nil
}

// recover starts the application afresh and replays everything.
func (r *rig) recover() ReplayResult {
	r.t.Helper()
	ctx := context.Background()
	require.NoError(r.t, r.proxy.Crash(ctx))
	reader, err := r.journal.NewReader(r.journal.Start())
	require.NoError(r.t, err)
	plan, err := replay.Build(reader, nil, nil)
	require.NoError(r.t, err)
	require.NoError(r.t, reader.Close())
	require.NoError(r.t, r.proxy.Rebuild(ctx, plan, nil))
	r.start()
	res, err := r.proxy.Replay(ctx, false)
	require.NoError(r.t, err)
	return res
}

// dial connects from the client's namespace.
func (r *rig) dial(addr netip.Addr, port uint16) (net.Conn, error) {
	var c net.Conn
	err := netns.Do(r.client, func() error {
		var err error
		d := net.Dialer{Timeout: soon}
		c, err = d.Dial("tcp", netip.AddrPortFrom(addr, port).String())
		return err
	})
	return c, err
}

// mustDial waits until the application listens.
func (r *rig) mustDial(addr netip.Addr) *redisConn {
	r.t.Helper()
	return r.dialUntil(addr, func(*redisConn) error { return nil })
}

// dialUntil connects until a connection serves.
func (r *rig) dialUntil(addr netip.Addr, serves func(*redisConn) error) *redisConn {
	r.t.Helper()
	for deadline := time.Now().Add(soon); ; time.Sleep(20 * time.Millisecond) {
		raw, err := r.dial(addr, 6379)
		if err == nil {
			c := newRedisConn(raw)
			if err = serves(c); err == nil {
				r.t.Cleanup(func() { raw.Close() })
				return c
			}
			raw.Close()
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("connect to %s: %v", addr, err)
		}
	}
}

// redisConn speaks inline commands and reads integer replies.
type redisConn struct {
	c net.Conn
	r *bufio.Reader
}

func (c *redisConn) incr(key string) (int64, error) {
	if _, err := fmt.Fprintf(c.c, "INCR %s\r\n", key); err != nil {
		return 0, err
	}
	return c.reply()
}

func (c *redisConn) reply() (int64, error) {
	_ = c.c.SetReadDeadline(time.Now().Add(soon))
	line, err := c.r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(line, ":")), 10, 64)
}

func TestMain(m *testing.M) {
	serveInstead()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "netproxy: the tests need root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func newRedisConn(c net.Conn) *redisConn { return &redisConn{c: c, r: bufio.NewReader(c)} }
