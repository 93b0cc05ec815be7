package proxybench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/env"
)

// bare is what is measured outside of containers, since ctr gives those no more
// than 1024 descriptors: a pod that nobody has touched, with servers and HAProxy,
// and one with the same servers and a proxy of ours, in a process of its own.
type bare struct {
	rig                   *bench.Rig
	dir                   string
	ways                  []*bareWay // to the servers behind our proxies
	procs                 []*exec.Cmd
	direct, haproxy, ours *target // of Redis
	rival                 *target // nil: there is none
	web                   []*target
}

// bareWay is a proxy of ours. It ends when its input is closed.
type bareWay struct {
	cmd  *exec.Cmd
	stop func() error
}

// Ports of the pods.
const (
	redisPort    = 6379
	webPort      = 80
	redisHAProxy = 7001
	webHAProxy   = 7002
)

// newBare returns what must be closed also if it fails. rival is another build of
// this benchmark, whose proxy is measured too; empty: none.
func newBare(ctx context.Context, rig *bench.Rig, rival string) (*bare, error) {
	b := &bare{rig: rig, dir: filepath.Join(rig.Env.Dir, "bare")}
	if err := os.MkdirAll(filepath.Join(b.dir, "www"), 0o755); err != nil {
		return b, err
	}
	err := errors.Join(
		os.WriteFile(filepath.Join(b.dir, "www", "small"), []byte("crsc\n"), 0o644),
		os.WriteFile(filepath.Join(b.dir, "www", "1mb"), make([]byte, 1<<20), 0o644),
	)
	if err != nil {
		return b, err
	}
	if err := b.plain(ctx); err != nil {
		return b, err
	}
	self, err := os.Executable()
	if err != nil {
		return b, err
	}
	if b.ours, err = b.proxied(ctx, "", "ours", self); err != nil {
		return b, err
	}
	if rival != "" {
		if b.rival, err = b.proxied(ctx, "rival", "rival", rival); err != nil {
			return b, err
		}
	}
	return b, nil
}

// plain makes the pod without a proxy of ours.
func (b *bare) plain(ctx context.Context) error {
	pod, err := b.servers(ctx, "plain")
	if err != nil {
		return err
	}
	cfg := filepath.Join(b.dir, "haproxy.cfg")
	if err := os.WriteFile(cfg, fmt.Appendf(nil, bareHAProxy, redisHAProxy, redisPort, webHAProxy, webPort), 0o600); err != nil {
		return err
	}
	pid, err := b.run(ctx, pod, "haproxy", "-db", "-f", cfg)
	if err != nil {
		return err
	}
	b.direct, b.haproxy = &target{name: "direct", title: "direct"}, &target{name: "haproxy", title: "HAProxy, 1 thread", pid: pid}
	return errors.Join(b.reach(ctx, b.direct, pod, redisPort, webPort), b.reach(ctx, b.haproxy, pod, redisHAProxy, webHAProxy))
}

// proxied makes a pod with the proxy of a build of this program.
func (b *bare) proxied(ctx context.Context, name, title, program string) (*target, error) {
	id := "bare" + name
	pod, err := b.rig.Env.MakePod(id)
	if err != nil {
		return nil, err
	}
	cmd := b.rig.Env.Command(ctx, program, ServeCommand, "-netns", pod.Path, "-journal", filepath.Join(b.dir, "journal-"+id))
	// As many as containerd gives a shim.
	cmd.Env = append(cmd.Env, "GOMAXPROCS=4")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.ways = append(b.ways, &bareWay{cmd: cmd, stop: stdin.Close})
	if said, err := bufio.NewReader(stdout).ReadString('\n'); said != ready {
		return nil, fmt.Errorf("%s %s: said %q: %w", program, ServeCommand, said, err)
	}
	// The servers come after it, as applications do.
	if _, err := b.servers(ctx, id); err != nil {
		return nil, err
	}
	t := &target{name: name, title: title, pid: cmd.Process.Pid}
	return t, b.reach(ctx, t, pod, redisPort, webPort)
}

// reach gives the target its addresses, and the web servers' targets one more.
func (b *bare) reach(ctx context.Context, t *target, pod *env.Netns, redis, web uint16) error {
	t.addr = netip.AddrPortFrom(pod.IP4, redis)
	b.web = append(b.web, &target{name: t.name, title: t.title, pid: t.pid, addr: netip.AddrPortFrom(pod.IP4, web)})
	if err := b.rig.AwaitRedis(ctx, t.addr); err != nil {
		return fmt.Errorf("%s: %w", t.title, err)
	}
	return nil
}

// targets are the ways to Redis.
func (b *bare) targets() []*target {
	out := []*target{b.direct, b.haproxy, b.ours}
	if b.rival != nil {
		out = append(out, b.rival)
	}
	return out
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
pid %[1]s/nginx.%[2]s.pid;
error_log stderr;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 1000000000;
  server { listen %[3]d; root %[1]s/www; }
}
`

// servers starts Redis and nginx in a pod, which is made if need be.
func (b *bare) servers(ctx context.Context, id string) (*env.Netns, error) {
	pod, err := b.rig.Env.MakePod(id)
	if err != nil {
		return nil, err
	}
	if _, err := b.run(ctx, pod, "redis-server", "--port", fmt.Sprint(redisPort), "--save", "", "--appendonly", "no", "--protected-mode", "no",
		"--bind", "*", "-::*", "--maxclients", "8000", "--dir", b.dir); err != nil {
		return nil, err
	}
	cfg := filepath.Join(b.dir, "nginx."+id+".conf")
	if err := os.WriteFile(cfg, fmt.Appendf(nil, bareNginx, b.dir, id, webPort), 0o600); err != nil {
		return nil, err
	}
	_, err = b.run(ctx, pod, "nginx", "-e", "stderr", "-c", cfg)
	return pod, err
}

// run starts a server in a pod.
func (b *bare) run(ctx context.Context, pod *env.Netns, name string, args ...string) (pid int, err error) {
	cmd, err := b.rig.PodCommand(ctx, pod, name, args...)
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

// close ends everything, and fails if a proxy had ceased to journal.
func (b *bare) close() error {
	var err error
	for _, p := range b.procs {
		// nginx ends its workers when it is asked to.
		err = errors.Join(err, p.Process.Signal(os.Interrupt))
		end := time.AfterFunc(5*time.Second, func() { _ = p.Process.Kill() })
		_ = p.Wait() // ended by a signal: that is its status
		end.Stop()
	}
	for _, w := range b.ways {
		err = errors.Join(err, w.stop())
		end := time.AfterFunc(30*time.Second, func() { _ = w.cmd.Process.Kill() })
		err = errors.Join(err, w.cmd.Wait())
		end.Stop()
	}
	return err
}
