package cases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/k8s/cluster"
)

// patience bounds the wait for what takes seconds when all is well.
const patience = 60 * time.Second

// failure ends a case.
type failure string

// T is one running case. Its methods end the case when something fails.
type T struct {
	ctx      context.Context
	c        *cluster.Cluster
	name     string
	figures  map[string]float64
	cleanups []func(context.Context) error
}

func (t *T) fail(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func (t *T) must(err error) {
	if err != nil {
		t.fail("%v", err)
	}
}

func (t *T) check(ok bool, format string, args ...any) {
	if !ok {
		t.fail(format, args...)
	}
}

// cleanup registers what is to be done after the case, last first.
func (t *T) cleanup(f func(context.Context) error) { t.cleanups = append(t.cleanups, f) }

func (t *T) cleanUp() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), patience)
	defer cancel()
	var errs []error
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		errs = append(errs, t.cleanups[i](ctx))
	}
	return errors.Join(errs...)
}

// await repeats a check until it succeeds.
func (t *T) await(check func(context.Context) error) { t.must(t.c.Await(t.ctx, patience, check)) }

func (t *T) kubectl(args ...string) string {
	out, err := t.c.Kubectl(t.ctx, args...)
	t.must(err)
	return strings.TrimSpace(out)
}

// namespace makes the namespace of the case, which goes with it.
func (t *T) namespace(labels ...string) string {
	ns := "t-" + t.name
	t.kubectl("create", "namespace", ns)
	t.cleanup(func(ctx context.Context) error {
		_, err := t.c.Kubectl(ctx, "delete", "namespace", ns, "--timeout=50s")
		return err
	})
	if len(labels) > 0 {
		t.kubectl(append([]string{"label", "namespace", ns}, labels...)...)
	}
	return ns
}

func (t *T) apply(ns, manifests string) { t.must(t.c.Apply(t.ctx, manifests, "-n", ns)) }

// field reads one field of an object.
func (t *T) field(ns, object, path string) string {
	return t.kubectl("get", "-n", ns, object, "-o", "jsonpath={"+path+"}")
}

// ready waits until a pod is ready, and returns it.
func (t *T) ready(ns, name string) *pod {
	t.await(func(ctx context.Context) error {
		out, err := t.c.Kubectl(ctx, "get", "-n", ns, "pod", name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.phase}`)
		if err == nil && out != "True Running" {
			events, _ := t.c.Kubectl(ctx, "get", "-n", ns, "events", "-o", `jsonpath={range .items[*]}{.message}{"\n"}{end}`)
			err = fmt.Errorf("pod %s: Ready/phase %s: %s", name, out, lastLine(events))
		}
		return err
	})
	return &pod{t: t, ns: ns, name: name, ip: t.field(ns, "pod/"+name, ".status.podIP")}
}

// only returns the one pod with a label, when it is ready.
func (t *T) only(ns, label string) *pod {
	var name string
	t.await(func(ctx context.Context) error {
		out, err := t.c.Kubectl(ctx, "get", "-n", ns, "pods", "-l", label, "-o", "jsonpath={.items[*].metadata.name}")
		if name = strings.TrimSpace(out); err == nil && (name == "" || strings.Contains(name, " ")) {
			err = fmt.Errorf("pods with %s: %q", label, name)
		}
		return err
	})
	return t.ready(ns, name)
}

// pod is one pod of a case.
type pod struct {
	t            *T
	ns, name, ip string
}

func (p *pod) field(path string) string { return p.t.field(p.ns, "pod/"+p.name, path) }

// containerID is containerd's name of a container of the pod.
func (p *pod) containerID(container string) string {
	for _, kind := range []string{"containerStatuses", "initContainerStatuses"} {
		id := p.field(fmt.Sprintf(`.status.%s[?(@.name=="%s")].containerID`, kind, container))
		if id != "" {
			return strings.TrimPrefix(id, "containerd://")
		}
	}
	p.t.fail("pod %s has no container %s", p.name, container)
	return ""
}

// init is the process ID of a container's init.
func (p *pod) init(container string) int {
	id := p.containerID(container)
	out, err := p.t.c.Run(p.t.ctx, "ctr", "tasks", "ls")
	p.t.must(err)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			pid, err := strconv.Atoi(f[1])
			p.t.must(err)
			return pid
		}
	}
	p.t.fail("no task %s:\n%s", id, out)
	return 0
}

// status is what the shim says of a container.
func (p *pod) status(container string) *status.Status {
	s, err := status.Read(p.stateDir(container))
	p.t.must(err)
	return s
}

func (p *pod) stateDir(container string) string {
	return filepath.Join("/var/lib/crsc/k8s.io", p.containerID(container))
}

// protected waits until a container is protected and has a checkpoint.
func (p *pod) protected(container string) *status.Status {
	var s *status.Status
	p.t.await(func(context.Context) (err error) {
		if s, err = status.Read(p.stateDir(container)); err != nil {
			return err
		}
		if !s.Protected || s.Checkpoints.Last == nil {
			return fmt.Errorf("container %s: protected %v (%s), last checkpoint %v (%s)",
				container, s.Protected, s.Reason, s.Checkpoints.Last, s.Checkpoints.LastError)
		}
		return nil
	})
	return s
}

// restarts is the restart count that Kubernetes has of a container.
func (p *pod) restarts(container string) string {
	return p.field(fmt.Sprintf(`.status.containerStatuses[?(@.name=="%s")].restartCount`, container))
}

// kill kills a container's init and waits for its recovery. It returns how long
// that took, in milliseconds.
func (p *pod) kill(container string) float64 {
	before := p.status(container).RecoveryCount
	proc, err := os.FindProcess(p.init(container))
	p.t.must(err)
	p.t.must(proc.Kill())
	var s *status.Status
	p.t.await(func(context.Context) (err error) {
		if s, err = status.Read(p.stateDir(container)); err == nil && (s.RecoveryCount <= before || s.Phase != "running") {
			err = fmt.Errorf("container %s: %d recoveries, %s, %s", container, s.RecoveryCount, s.Phase, s.Reason)
		}
		return err
	})
	return s.Recoveries[len(s.Recoveries)-1].TotalMS
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// countLines counts how often each line occurs.
func countLines(b []byte) map[string]int {
	n := map[string]int{}
	for line := range bytes.Lines(b) {
		n[strings.TrimSpace(string(line))]++
	}
	return n
}
