package cases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/k8s/cluster"
)

// killedContainerd and killedKubelet: the daemon dies in the middle of a
// recovery, and more recoveries come while it starts again; nobody notices.
func killedContainerd(t *T) { t.killedDaemon(t.c.Containerd) }
func killedKubelet(t *T)    { t.killedDaemon(t.c.Kubelet) }

func (t *T) killedDaemon(daemon *cluster.Process) {
	ns := t.namespace()
	t.apply(ns, strings.Replace(redisDeployment, "crsc.io/checkpoint-interval: 2s", "crsc.io/checkpoint-interval: 2s\n        crsc.io/recovery-budget: 1000/10m", 1))
	p := t.only(ns, "app=redis")
	p.protected("redis")
	dir := p.stateDir("redis") // as long as containerd answers
	l := t.drive(p.ip, 6379, 5, 500)
	for range 3 {
		time.Sleep(500 * time.Millisecond)
		starts := daemon.Starts()
		before := crash(t, dir)
		t.must(daemon.Signal(syscall.SIGKILL))
		t.awaitRecovery(dir, before)
		// A started daemon asks for the state of what it finds running.
		for since := (time.Time{}); since.IsZero() || time.Since(since) < 2*time.Second; {
			t.awaitRecovery(dir, crash(t, dir))
			t.figures["recoveries"]++
			if since.IsZero() && daemon.Starts() > starts {
				since = time.Now()
			}
		}
		t.ready(ns, p.name)
	}
	time.Sleep(time.Second)
	r := t.finish(l)
	t.worst("stall_ms", r.LatencyMS.Max)
	t.await(func(ctx context.Context) error {
		_, err := t.c.Kubectl(ctx, "exec", "-n", ns, p.name, "--", "redis-cli", "ping")
		return err
	})
	t.check(p.restarts("redis") == "0", "restart count is %s", p.restarts("redis"))
	t.check(len(t.events(ns, "Recovered")) >= 3, "events: %v", t.events(ns, "Recovered"))
}

// killedShim: a pod whose shim is killed begins anew, as with any runtime, and nothing
// is left of it. containerd tells the shim's binary of the sandbox only, or, when it
// has been killed as well, has another binary clean up after the others.
func killedShim(t *T) {
	ns := t.namespace()
	t.apply(ns, redisDeployment)
	p := t.only(ns, "app=redis")
	for i, alsoContainerd := range []bool{false, true} {
		s := p.protected("redis")
		dir, id, address := p.stateDir("redis"), p.containerID("redis"), p.ip
		if alsoContainerd {
			t.must(t.c.Containerd.Signal(syscall.SIGKILL))
		}
		t.must(syscall.Kill(s.ShimPid, syscall.SIGKILL))
		t.await(func(context.Context) error {
			if n := p.restarts("redis"); n != fmt.Sprint(i+1) || p.containerID("redis") == id {
				return fmt.Errorf("restart count is %s", n)
			}
			return nil
		})
		p = t.only(ns, "app=redis")
		t.check(p.ip != address, "the pod has the sandbox of before: its shim was not killed")
		p.protected("redis")
		t.await(func(context.Context) error {
			mounts, err := os.ReadFile("/proc/self/mounts")
			switch _, gone := os.Lstat(dir); {
			case err != nil:
				return err
			case !errors.Is(gone, fs.ErrNotExist):
				return fmt.Errorf("%s is left", dir)
			case strings.Contains(string(mounts), id):
				return fmt.Errorf("mounts of %s are left", id)
			case !errors.Is(syscall.Kill(s.Pid, 0), syscall.ESRCH):
				return fmt.Errorf("process %d of %s is left", s.Pid, id)
			}
			return nil
		})
	}
	t.worst("recovery_ms", p.kill("redis"))
}

// crash kills the init of the container with a state directory, and returns how
// many recoveries it had.
func crash(t *T, dir string) int {
	s, err := status.Read(dir)
	t.must(err)
	proc, err := os.FindProcess(s.Pid)
	t.must(err)
	t.must(proc.Kill())
	return s.RecoveryCount
}

func (t *T) awaitRecovery(dir string, before int) {
	t.await(func(context.Context) error {
		s, err := status.Read(dir)
		if err == nil && (s.RecoveryCount <= before || s.Phase != "running") {
			err = fmt.Errorf("%d recoveries, %s, %s", s.RecoveryCount, s.Phase, s.Reason)
		}
		return err
	})
}

// overBudget: when the budget is used up the kubelet sees the exit as usual, and
// starts a new container in the same sandbox. It goes on where the other ended, and
// its clients have waited.
func overBudget(t *T) {
	ns := t.namespace()
	t.apply(ns, fmt.Sprintf(statefulSet, ", crsc.io/recovery-budget: 1/10m", ""))
	p := t.only(ns, "app=redis")
	p.protected("redis")
	run := p.runID()
	l := t.drive(p.ip, 6379, 5, 200)
	time.Sleep(500 * time.Millisecond)
	t.worst("recovery_ms", p.kill("redis"))
	p = p.exceed("redis")
	t.check(p.runID() == run, "the new container runs another Redis")
	t.finish(l)
	t.worst("recovery_ms", p.protected("redis").Recoveries[0].TotalMS)
}

// exceed crashes a container that has used up its budget, and waits for the next
// one in the pod, which resumes.
func (p *pod) exceed(container string) *pod {
	t := p.t
	first := p.containerID(container)
	proc, err := os.FindProcess(p.init(container))
	t.must(err)
	t.must(proc.Kill())
	t.await(func(context.Context) error {
		if n := p.restarts(container); n != "1" || p.containerID(container) == first {
			return fmt.Errorf("restart count is %s", n)
		}
		return nil
	})
	exit := p.field(`.status.containerStatuses[?(@.name=="` + container + `")].lastState.terminated.exitCode`)
	t.check(exit == "137", "exit code is %s", exit)
	next := t.ready(p.ns, p.name)
	s := next.protected(container)
	t.check(strings.Contains(s.RestoredFrom, first), "restored from %q, not resumed because of %q", s.RestoredFrom, s.NotResumed)
	return next
}

// upgrade replaces the shim under a running pod, which keeps the old one.
func upgrade(t *T) {
	ns := t.namespace()
	t.apply(ns, redisDeployment)
	p := t.only(ns, "app=redis")
	p.protected("redis")
	l := t.drive(p.ip, 6379, 5, 500)
	const shim = "/opt/crsc/bin/containerd-shim-crsc-v1"
	installed, err := os.ReadFile(shim)
	t.must(err)
	// Another file of the same name, as an older version would be; the rollout
	// puts the version of the image in its place.
	t.must(os.Rename(shim, shim+".old"))
	t.must(os.WriteFile(shim, append([]byte{}, installed[:len(installed)-1]...), 0o755))
	t.must(os.Remove(shim + ".old"))
	starts := t.c.Containerd.Starts()
	t.kubectl("-n", "crsc-system", "rollout", "restart", "daemonset/crsc-node")
	t.kubectl("-n", "crsc-system", "rollout", "status", "daemonset/crsc-node", "--timeout=60s")
	now, err := os.ReadFile(shim)
	t.must(err)
	t.check(string(now) == string(installed), "the shim was not replaced")
	t.check(t.c.Containerd.Starts() == starts, "containerd was restarted for nothing")
	t.worst("recovery_ms", p.kill("redis"))
	t.finish(l)
	t.check(p.restarts("redis") == "0", "restart count is %s", p.restarts("redis"))
	p.replaced()
	t.only(ns, "app=redis").protected("redis")
}

// uninstall takes everything off the node, once nobody uses it any more.
func uninstall(t *T) {
	ns := t.namespace()
	t.apply(ns, redisDeployment)
	p := t.only(ns, "app=redis")
	p.protected("redis")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 30 { // the removal waits meanwhile
			time.Sleep(100 * time.Millisecond)
		}
		_, _ = t.c.Kubectl(t.ctx, "delete", "-n", ns, "deployment/redis", "--timeout=50s") // the removal would fail
	}()
	t.document("uninstall")
	<-done
	t.removed()
}

// removed checks that nothing of ours is on the node.
func (t *T) removed() {
	for _, path := range []string{"/opt/crsc", "/etc/crsc", "/etc/containerd/conf.d", "/var/lib/crsc/k8s.io"} {
		_, err := os.Lstat(path)
		t.check(os.IsNotExist(err), "%s is still there (%v)", path, err)
	}
	now, err := os.ReadFile("/etc/containerd/config.toml")
	t.must(err)
	t.check(string(now) == t.c.ContainerdConfig(), "containerd's configuration is not what it was:\n%s", now)
}
