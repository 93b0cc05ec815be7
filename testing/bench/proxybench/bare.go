package proxybench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/env"
)

// bare is a pod with servers that are not in containers, since ctr gives
// containers no more than 1024 descriptors, and a proxy in this process. What
// this process uses is therefore what the proxy uses.
type bare struct {
	rig                   *bench.Rig
	pod                   *env.Netns
	dir                   string
	proxy                 *netproxy.Proxy
	journal               *journal.Journal
	fault                 error
	procs                 []*exec.Cmd
	haproxyPid            int
	direct, haproxy, ours *target // of Redis
	web                   []*target
}

// Ports of the pod: each server twice, since the proxy takes a whole port.
const (
	redisOurs, redisDirect = 6379, 6380
	webOurs, webDirect     = 80, 81
	redisHAProxy           = 7001
	webHAProxy             = 7002
)

// newBare returns a pod that must be closed also if it fails.
func newBare(ctx context.Context, rig *bench.Rig) (*bare, error) {
	b := &bare{rig: rig, dir: filepath.Join(rig.Env.Dir, "bare")}
	if err := os.MkdirAll(filepath.Join(b.dir, "www"), 0o755); err != nil {
		return b, err
	}
	var err error
	if b.pod, err = rig.Env.MakePod("bare"); err != nil {
		return b, err
	}
	at := func(name, title string, port uint16, pid int) *target {
		return &target{name: name, title: title, addr: netip.AddrPortFrom(b.pod.IP4, port), pid: pid}
	}
	if err := b.startProxy(); err != nil {
		return b, err
	}
	if err := b.startServers(ctx); err != nil {
		return b, err
	}
	b.direct = at("direct", "direct", redisDirect, 0)
	b.haproxy = at("haproxy", "HAProxy, 1 thread", redisHAProxy, b.haproxyPid)
	b.ours = at("", "ours", redisOurs, os.Getpid())
	b.web = []*target{at("direct", "direct", webDirect, 0), at("haproxy", "HAProxy, 1 thread", webHAProxy, b.haproxyPid), at("", "ours", webOurs, os.Getpid())}
	for _, t := range []*target{b.direct, b.haproxy, b.ours} {
		if err := rig.AwaitRedis(ctx, t.addr); err != nil {
			return b, fmt.Errorf("%s: %w", t.title, err)
		}
	}
	return b, nil
}

func (b *bare) startProxy() (err error) {
	if b.journal, err = journal.Open(journal.Options{Dir: filepath.Join(b.dir, "journal"), MaxBytes: 64 << 30}); err != nil {
		return err
	}
	ns, err := os.Open(b.pod.Path)
	if err != nil {
		return err
	}
	defer ns.Close()
	log := logrus.New()
	log.SetOutput(io.Discard)
	b.proxy, err = netproxy.New(netproxy.Options{
		NetNS: int(ns.Fd()), Name: "bench", Journal: b.journal, Order: order.Tracepoint,
		Dying:        func() netproxy.Dying { return netproxy.Alive },
		ExcludePorts: []uint16{redisDirect, webDirect, redisHAProxy, webHAProxy},
		OnFault:      func(err error) { b.fault = err }, Log: logrus.NewEntry(log),
	})
	return err
}

const bareHAProxy = `global
  maxconn 9000
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen redis
  bind :%d
  server redis 127.0.0.1:%d
listen web
  bind :%d
  server web 127.0.0.1:%d
`

const bareNginx = `daemon off;
worker_processes 1;
user root;
pid %[1]s/nginx.pid;
error_log stderr;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 1000000000;
  server { listen %[2]d; listen %[3]d; root %[1]s/www; }
}
`

func (b *bare) startServers(ctx context.Context) error {
	hcfg, ncfg := filepath.Join(b.dir, "haproxy.cfg"), filepath.Join(b.dir, "nginx.conf")
	err := errors.Join(
		os.WriteFile(hcfg, fmt.Appendf(nil, bareHAProxy, redisHAProxy, redisDirect, webHAProxy, webDirect), 0o600),
		os.WriteFile(ncfg, fmt.Appendf(nil, bareNginx, b.dir, webOurs, webDirect), 0o600),
		os.WriteFile(filepath.Join(b.dir, "www", "small"), []byte("crsc\n"), 0o644),
		os.WriteFile(filepath.Join(b.dir, "www", "1mb"), make([]byte, 1<<20), 0o644),
	)
	if err != nil {
		return err
	}
	for _, port := range []string{fmt.Sprint(redisOurs), fmt.Sprint(redisDirect)} {
		if _, err := b.run(ctx, "redis-server", "--port", port, "--save", "", "--appendonly", "no", "--protected-mode", "no",
			"--bind", "*", "-::*", "--maxclients", "8000", "--dir", b.dir); err != nil {
			return err
		}
	}
	if _, err := b.run(ctx, "nginx", "-e", "stderr", "-c", ncfg); err != nil {
		return err
	}
	b.haproxyPid, err = b.run(ctx, "haproxy", "-db", "-f", hcfg)
	return err
}

// run starts a server in the pod.
func (b *bare) run(ctx context.Context, name string, args ...string) (pid int, err error) {
	cmd, err := b.rig.PodCommand(ctx, b.pod, name, args...)
	if err != nil {
		return 0, err
	}
	log, err := os.OpenFile(filepath.Join(b.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	b.procs = append(b.procs, cmd)
	return cmd.Process.Pid, nil
}

// close ends everything, and fails if the proxy had ceased to journal.
func (b *bare) close() error {
	err := b.fault
	for _, p := range b.procs {
		// nginx ends its workers when it is asked to.
		err = errors.Join(err, p.Process.Signal(os.Interrupt))
		end := time.AfterFunc(5*time.Second, func() { _ = p.Process.Kill() })
		_ = p.Wait() // ended by a signal: that is its status
		end.Stop()
	}
	if b.proxy != nil {
		err = errors.Join(err, b.proxy.Close())
	}
	if b.journal != nil {
		err = errors.Join(err, b.journal.Destroy())
	}
	return err
}
