package proxybench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/crsc-io/crsc/testing/bench"
)

// Ports of HAProxy in the pod of the direct Redis.
const (
	haproxyPort    = 7001 // one thread, as ours
	haproxyAllPort = 7002 // as many threads as cores, its default
)

// proxyOnly switches checkpoints off. The journal then only grows, and must not
// reach the size at which protection ends.
func proxyOnly(more ...string) map[string]string {
	s := map[string]string{
		"checkpoint-interval": "off", "checkpoint-journal-size": "off", "checkpoint-journal-records": "off",
		"journal-max-size": "64Gi",
	}
	for i := 0; i < len(more); i += 2 {
		s[more[i]] = more[i+1]
	}
	return s
}

// target is one way to a Redis.
type target struct {
	name   string // in metrics; ours, the plain one, has none
	title  string // in tables
	addr   netip.AddrPort
	server *bench.Server // the container that must stay protected; nil: none
	pid    int           // of the proxy's process; 0: there is none, or it is not measured
}

// lab is everything that is measured.
type lab struct {
	rig                               *bench.Rig
	direct, haproxy, haproxyAll, ours *target
	variants                          []*target
	proxies                           []*exec.Cmd
}

// newLab returns a lab that must be closed also if it fails.
func newLab(ctx context.Context, rig *bench.Rig) (*lab, error) {
	l := &lab{rig: rig}
	plain, err := rig.StartRedis(ctx, bench.ServerOptions{ID: "direct", Pod: "direct"})
	if err != nil {
		return l, err
	}
	l.direct = &target{name: "direct", title: "direct", addr: plain.Addr}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(plain.Addr.Addr(), port) }
	l.haproxy = &target{name: "haproxy", title: "HAProxy, 1 thread", addr: at(haproxyPort)}
	l.haproxyAll = &target{name: "haproxy_threads", title: "HAProxy, default threads", addr: at(haproxyAllPort)}
	for _, p := range []struct {
		t       *target
		threads string
	}{{l.haproxy, "nbthread 1"}, {l.haproxyAll, ""}} {
		if err := l.startHAProxy(ctx, plain, p.t, p.threads); err != nil {
			return l, err
		}
	}
	l.ours, err = l.start(ctx, "", "ours", proxyOnly())
	return l, err
}

// startVariants adds the containers with other options. They come late so that
// they do not take time from the main comparison.
func (l *lab) startVariants(ctx context.Context) error {
	for _, v := range []struct {
		name, title string
		settings    map[string]string
	}{
		{"serial", "order serial", proxyOnly("order", "serial")},
		{"memory", "durability memory", proxyOnly("durability", "memory")},
		{"disk", "durability disk", proxyOnly("durability", "disk")},
		{"defaults", "all defaults (with checkpoints)", map[string]string{}},
	} {
		t, err := l.start(ctx, v.name, v.title, v.settings)
		if err != nil {
			return err
		}
		l.variants = append(l.variants, t)
	}
	return nil
}

// start runs a protected Redis in a pod of its own.
func (l *lab) start(ctx context.Context, name, title string, settings map[string]string) (*target, error) {
	id := name
	if id == "" {
		id = "ours"
	}
	s, err := l.rig.StartRedis(ctx, bench.ServerOptions{ID: id, Pod: id, Settings: settings})
	if err != nil {
		return nil, err
	}
	return &target{name: name, title: title, addr: s.Addr, server: s}, nil
}

// check makes sure that what was measured was our proxy: a container that has
// lost its protection is only relayed.
func (l *lab) check() error {
	var err error
	for _, t := range append([]*target{l.ours}, l.variants...) {
		if e := t.server.Protected(); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", t.title, e))
		}
	}
	return err
}

const haproxyConfig = `global
  maxconn 4096
  %s
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen redis
  bind :%d
  server redis 127.0.0.1:%d
`

// startHAProxy runs it in a server's pod.
func (l *lab) startHAProxy(ctx context.Context, s *bench.Server, t *target, threads string) error {
	file := filepath.Join(l.rig.Env.Dir, t.name+".cfg")
	text := fmt.Sprintf(haproxyConfig, threads, t.addr.Port(), s.Addr.Port())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	cmd, err := l.rig.PodCommand(ctx, s.Pod, "haproxy", "-db", "-f", file)
	if err != nil {
		return err
	}
	log, err := os.Create(file + ".log")
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own, as shims have: sched_autogroup_enabled (sched(7)) would
	// have it share a processor's time with the load's programs otherwise.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	l.proxies = append(l.proxies, cmd)
	if err := l.rig.AwaitRedis(ctx, t.addr); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("haproxy: %w: %s", err, said)
	}
	return nil
}

// close ends what is not a container.
func (l *lab) close() error {
	var err error
	for _, p := range l.proxies {
		err = errors.Join(err, p.Process.Kill())
		_ = p.Wait() // killed: that is its status
	}
	return err
}
